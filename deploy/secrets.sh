#!/usr/bin/env bash
# Makes what compose.yaml keeps secret, in deploy/secrets: passwords, one authority, and a
# certificate for each sidecar and each server. What is there already stays.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
cd secrets

random() { [ -s "$1" ] || openssl rand -hex 24 > "$1"; }

authority() {
  [ -s ca.pem ] || openssl req -x509 -newkey ed25519 -nodes -days 3650 -subj "/CN=pgwaltz authority" -keyout ca.key -out ca.pem 2>/dev/null
}

# certificate NAME HOST: the name says which region the sidecar is, or which server.
certificate() {
  [ -s "$1.pem" ] && return
  openssl req -newkey ed25519 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 397 -out "$1.pem" \
    -extfile <(printf 'subjectAltName=DNS:%s,DNS:%s\n' "$1" "$2") 2>/dev/null
  rm "$1.csr"
}

random postgres_password
random pgwaltz_password
authority
for region in eu us; do
  certificate "$region" "pgwaltz-$region"
  certificate "postgres-$region" "postgres-$region"
  # setup alone connects as the superuser.
  echo "host=postgres-$region user=postgres password=$(cat postgres_password) dbname=accounts sslmode=verify-full sslrootcert=/run/secrets/ca" > "admin_dsn_$region"
done
# The containers run as other users.
chmod 0644 ./*.pem ./*.key pgwaltz_password postgres_password admin_dsn_*
chmod 0600 ca.key
chmod 0700 .
