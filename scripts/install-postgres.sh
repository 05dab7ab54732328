#!/usr/bin/env bash
# Installs the PostgreSQL server programs when there are none: initdb and postgres, found
# where pgwaltz looks for them. With the word pglogical, that extension for them as well.
# Debian and its kin only; elsewhere it says what is missing.
set -euo pipefail

found() {
  local dir
  for dir in "${PGWALTZ_PG_BIN:-}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
    [[ -n $dir && -x $dir/initdb && -x $dir/postgres ]] && return 0
  done
  command -v initdb >/dev/null && command -v postgres >/dev/null
}

# Whether a server that is found has the extension.
pglogical() {
  local config
  for config in "${PGWALTZ_PG_BIN:-/nowhere}/pg_config" /usr/lib/postgresql/*/bin/pg_config "$(command -v pg_config || true)"; do
    [[ -x $config && -f $("$config" --sharedir)/extension/pglogical.control ]] && return 0
  done
  return 1
}

wanted=${1:-}
if found && { [[ $wanted != pglogical ]] || pglogical; }; then
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "PostgreSQL${wanted:+, or its extension $wanted,} is missing: install its server package, or set PGWALTZ_PG_BIN to the folder of initdb and postgres" >&2
  exit 1
fi
sudo=()
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "PostgreSQL${wanted:+, or its extension $wanted,} is missing: run 'apt-get install postgresql${wanted:+ postgresql-15-$wanted}' as root" >&2
    exit 1
  fi
  sudo=(sudo)
fi

export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
# The wanted version where the distribution has it, else the distribution's own.
version=${POSTGRES_VERSION:-15}
if ! found; then
  echo "installing PostgreSQL" >&2
  if ! "${sudo[@]}" apt-get install -y -qq --no-install-recommends "postgresql-$version" >&2; then
    "${sudo[@]}" apt-get install -y -qq --no-install-recommends postgresql >&2
  fi
  found || { echo "PostgreSQL was installed, but initdb and postgres are not where they are looked for" >&2; exit 1; }
fi
[[ $wanted == pglogical ]] || exit 0
installed=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 -name '[0-9]*' -printf '%f\n' 2>/dev/null | sort -n | tail -n 1)
echo "installing pglogical for PostgreSQL ${installed:-$version}" >&2
# The tests that need it say so by themselves where it cannot be had.
"${sudo[@]}" apt-get install -y -qq --no-install-recommends "postgresql-${installed:-$version}-pglogical" >&2 ||
  echo "the extension pglogical is not to be had here: its tests will fail; with the packages of apt.postgresql.org: apt-get install postgresql-${installed:-$version}-pglogical" >&2
