#!/usr/bin/env bash
# The whole of `make test`: the Go tests with the race detector, then a short share of the
# long runs that are there. Every part runs even when one before it failed, and the last
# lines count what passed and what failed.
set -uo pipefail
cd "$(dirname "$0")/.."

limit=${TEST_TIMEOUT:-20m}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed_parts=()

part() { # name, command...
  local name=$1 started=$SECONDS
  shift
  echo "== $name"
  if "$@" 2>&1 | tee "$out/$name.log"; then
    echo "== $name: ok after $((SECONDS - started))s"
  else
    echo "== $name: FAILED after $((SECONDS - started))s"
    failed_parts+=("$name")
  fi
}

build() { CGO_ENABLED=0 go build -o bin/pgwaltz ./cmd/pgwaltz; }

# The packages that take longest begin first: at the end nothing runs alone for minutes.
first=(./test/fallback ./test/cutover ./test/settings ./test/bench ./test/pgsync ./test/hostile ./test/deploy)

go_tests() { # CI must not skip what needs PostgreSQL
  export PGWALTZ_TEST_REQUIRE_POSTGRES=1
  export PGWALTZ_BIN=$PWD/bin/pgwaltz # else each package that starts regions builds it
  # -v for the count of tests; only packages, failures and their output are shown.
  # Much of it waits for servers: one package more than there are cores at a time.
  # shellcheck disable=SC2086
  go test -race -timeout "$limit" -p "$(($(nproc) + 1))" -v ${TEST_FLAGS:-} "${first[@]}" ./... >"$out/verbose.log" 2>&1
  local code=$?
  grep -E '^(ok|FAIL|panic:)|^\?' "$out/verbose.log" | grep -v 'no test files' || true
  if [[ $code -ne 0 ]]; then
    grep -vE '^=== (RUN|PAUSE|CONT|NAME)|^ *--- PASS|^PASS$|^\?' "$out/verbose.log" | tail -400
  fi
  return $code
}

mkdir -p bin
part build build
part go-test go_tests
# The cases that take minutes (crash at every step, a million rows, long partitions) are left
# to `make cases`.
share='^(DT|RI|GN|CF|LP)-|^TO-(0|1 |[2-8]|13)|^SE-(0|1[0-246-9])|^TX-(03|04|06|07|09|10)|^SL-(0[1-7]|1)|^NS-(0|12|19)|^CR-(05|08|15)'
# Of what was found by trying to break it: a few of each class.
share+='|^CH-([1579]|7b) |^RV-(02|04|05|40) |^GR-1 |^OR-1 |^P(K-[238]|R-1|T-1) |^FK-01 |^DD-(07|18|20b) |^SC-05 |^NB-11 |^(EC|DC|OT|DF|IN|CI|LT|ID|TO)-1 |^OW-(03b|04|13|14|28|37|41b) '
# The simulation needs nothing but processor time, of which the cases, which wait for servers, leave some.
(
  PGWALTZ_SIM_SEEDS=${SHORT_SEEDS:-1000} nice -n 10 go test -count=1 -timeout 20m -run TestSim ./test/sim/...
  echo $? >"$out/sim.code"
) >"$out/sim.run" 2>&1 &
sim_pid=$!
sim_ended() {
  while [[ ! -s $out/sim.code ]] && kill -0 "$sim_pid" 2>/dev/null; do sleep 1; done
  cat "$out/sim.run"
  [[ -s $out/sim.code ]] && return "$(<"$out/sim.code")"
}
PGWALTZ_BIN=$PWD/bin/pgwaltz part cases go run ./test/cases/runcases -j "$(($(nproc) + 2))" -run "${SHORT_CASES:-$share}" test/cases
part sim sim_ended
# Real servers under faults, for twenty seconds and the questions afterwards.
PGWALTZ_BIN=$PWD/bin/pgwaltz part chaos go run ./test/chaos -seed "${CHAOS_SEED:-41}" -duration "${CHAOS_DURATION:-20s}" -drain 90s \
  -faults "^(sidecar|store|slot|link|pglink|server-(kill|crash|restart|terminate|lock|freeze))"
# A few tables that nobody thought of, altered while both regions write them.
part shapes go run ./test/shapes -pgwaltz bin/pgwaltz -seed "${SHAPES_SEED:-1}" -span "${SHAPES_DURATION:-10s}" -tables 6 -ddl
# TPC-C between two regions, in ten short windows with bursts between them.
part soak go run ./test/soak -pgwaltz bin/pgwaltz -duration "${SOAK_DURATION:-20s}"

count() { grep -cE "$1" "$out/verbose.log" 2>/dev/null || true; }
echo
echo "go test: $(count '^ *--- PASS') passed, $(count '^ *--- FAIL') failed, $(count '^ *--- SKIP') skipped"
# What was left out for want of something on this machine is named, not only counted.
grep -ohE 'NOT RUN.*' "$out/verbose.log" 2>/dev/null | sort -u || true
[[ -f $out/cases.log ]] && grep -E '[0-9]+ passed, [0-9]+ failed' "$out/cases.log" | tail -n 1 | sed 's/^/cases: /'
[[ -f $out/chaos.log ]] && grep -E '[0-9]+ passed, [0-9]+ failed' "$out/chaos.log" | tail -n 1
if [[ ${#failed_parts[@]} -gt 0 ]]; then
  echo "FAILED: ${failed_parts[*]}"
  exit 1
fi
echo "PASS"
