#!/usr/bin/env bash
# Makes the sidecar's role when the database is created. It owns nothing; setup grants what it
# needs.
set -euo pipefail
psql -v ON_ERROR_STOP=1 -v password="$(cat /run/secrets/pgwaltz_password)" -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<'SQL'
create role pgwaltz login password :'password';
SQL
