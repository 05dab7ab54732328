#!/usr/bin/env bash
# Installs the PostgreSQL server programs when there are none: initdb and postgres, found
# where pgwaltz looks for them. Debian and its kin only; elsewhere it says what is missing.
set -euo pipefail

found() {
  local dir
  for dir in "${PGWALTZ_PG_BIN:-}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
    [[ -n $dir && -x $dir/initdb && -x $dir/postgres ]] && return 0
  done
  command -v initdb >/dev/null && command -v postgres >/dev/null
}

found && exit 0

if ! command -v apt-get >/dev/null; then
  echo "PostgreSQL is missing: install its server package, or set PGWALTZ_PG_BIN to the folder of initdb and postgres" >&2
  exit 1
fi
sudo=()
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "PostgreSQL is missing: run 'apt-get install postgresql' as root" >&2
    exit 1
  fi
  sudo=(sudo)
fi

echo "installing PostgreSQL" >&2
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
# The wanted version where the distribution has it, else the distribution's own.
version=${POSTGRES_VERSION:-15}
if ! "${sudo[@]}" apt-get install -y -qq --no-install-recommends "postgresql-$version" >&2; then
  "${sudo[@]}" apt-get install -y -qq --no-install-recommends postgresql >&2
fi
found || { echo "PostgreSQL was installed, but initdb and postgres are not where they are looked for" >&2; exit 1; }
