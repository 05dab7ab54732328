#!/usr/bin/env bash
# Says so when Go is missing or older than go.mod asks for and cannot fetch a newer one.
set -euo pipefail
cd "$(dirname "$0")/.."
want=$(awk '$1 == "go" { print $2 }' go.mod)
if ! command -v go >/dev/null; then
  echo "Go $want or later is missing: https://go.dev/dl/" >&2
  exit 1
fi
if ! go version >/dev/null 2>&1 || ! go list -m >/dev/null 2>&1; then
  echo "Go $want or later is needed; this is $(GOTOOLCHAIN=local go env GOVERSION)" >&2
  exit 1
fi
