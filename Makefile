# pgwaltz. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO      ?= go
BIN     := bin/pgwaltz
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)

# The version comes from git describe; Go itself refuses to look into a checkout that
# belongs to another user, as those of CI often do.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

# Whole runs of the long targets, and the shares of them inside `make test`.
CASES        ?= test/cases
RUN          ?=
SEEDS        ?= 100000
SHORT_SEEDS  ?= 1000
SEED         ?=
DURATION     ?= 1h
CHAOS_FLAGS  ?= -clock
PG_VERSIONS  ?= 14 15 16 17 18
MATRIX_CASES ?= ^(DT|TO|RI|GN|CF|LP|KY|OW|CI|LT|PT|IN|DF|ID|EC|DC|OT|FK)-
FUZZ_TIME    ?= 30s
DEMO_FLAGS   ?=
BENCH_FLAGS  ?=
QUICK        ?=
SCHEMAS_FLAGS ?=
SHAPES_FLAGS ?= -ddl -faults
TEST_FLAGS   ?=

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: go postgres pglogical
go:
	@scripts/check-go.sh
postgres:
	@scripts/install-postgres.sh
pglogical:
	@scripts/install-postgres.sh pglogical

.PHONY: build
build: go ## Build the static binary bin/pgwaltz
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/pgwaltz

.PHONY: demo
demo: postgres build ## Two regions, a cut link, and the proof that they agree (DEMO_FLAGS=)
	@$(BIN) demo $(DEMO_FLAGS)

.PHONY: test
test: lint-short go pglogical ## Everything, with short shares of the long runs; under 25 minutes
	@scripts/test.sh

.PHONY: cases
cases: go postgres ## Run acceptance cases (CASES=file or folder, RUN=regexp)
	@$(GO) run ./test/cases/runcases $(if $(RUN),-run '$(RUN)') $(CASES)

.PHONY: sim
sim: go ## The deterministic simulation over many seeds (SEEDS=)
	PGWALTZ_SIM_SEEDS=$(SEEDS) $(GO) test -timeout 6h -run 'TestSim' ./test/sim/...

.PHONY: chaos
chaos: go postgres build ## Faults on real servers with an oracle (SEED= DURATION= CHAOS_FLAGS=), see test/chaos/doc.go
	PGWALTZ_BIN=$(CURDIR)/$(BIN) $(GO) run ./test/chaos $(if $(SEED),-seed $(SEED)) -duration $(DURATION) $(CHAOS_FLAGS)

.PHONY: soak
soak: go postgres build ## TPC-C between two regions for 30 minutes: nothing wears out (DURATION=)
	$(GO) run ./test/soak -pgwaltz $(BIN) -duration $(if $(filter file,$(origin DURATION)),30m,$(DURATION))

.PHONY: schemas
schemas: go postgres build ## The schemas of five Debian packages between two regions; fetches them (SCHEMAS_FLAGS=)
	$(GO) run ./test/schemas -pgwaltz $(BIN) $(SCHEMAS_FLAGS)

.PHONY: shapes
shapes: go postgres build ## Tables drawn from a seed, written and altered in all regions (SEED= SHAPES_FLAGS=)
	$(GO) run ./test/shapes -pgwaltz $(BIN) $(if $(SEED),-seed $(SEED)) $(SHAPES_FLAGS)

.PHONY: bench
bench: go postgres build ## Measure against native and pglogical; prints ratios, writes JSON and plots (QUICK=1: five minutes; BENCH_FLAGS=)
	@mkdir -p bench-results
	$(GO) run ./test/bench -pgwaltz $(BIN) -out bench-results/bench.json -markdown bench-results/bench.md -plots bench-results $(if $(QUICK),-quick) $(BENCH_FLAGS)

.PHONY: test-matrix
test-matrix: build ## The demo and the cases MATRIX_CASES names, on each version of PG_VERSIONS
	@failed=; for v in $(PG_VERSIONS); do \
	  bin=$$(scripts/postgres-version.sh $$v) || continue; \
	  echo "== PostgreSQL $$v"; \
	  PGWALTZ_PG_BIN=$$bin LD_LIBRARY_PATH=$$bin/../lib $(BIN) demo --duration 15s || failed="$$failed $$v"; \
	  PGWALTZ_BIN=$(CURDIR)/$(BIN) PGWALTZ_PG_BIN=$$bin $(GO) run ./test/cases/runcases -run '$(MATRIX_CASES)' $(CASES) || failed="$$failed $$v"; \
	done; [[ -z $$failed ]] || { echo "FAILED:$$failed"; exit 1; }

.PHONY: test-fallback
test-fallback: go pglogical ## The fallback modes on each version of PG_VERSIONS that is to be had
	@failed=; for v in $(PG_VERSIONS); do \
	  bin=$$(scripts/postgres-version.sh $$v) || continue; \
	  echo "== PostgreSQL $$v"; \
	  PGWALTZ_PG_BIN=$$bin LD_LIBRARY_PATH=$$bin/../lib $(GO) test -race -count=1 -v $$([[ $$bin == /usr/lib/postgresql/* ]] || echo -skip Pglogical) ./test/fallback | grep -E '^(ok|FAIL|---| +---| +[a-z_]+\.go:)' || failed="$$failed $$v"; \
	done; [[ -z $$failed ]] || { echo "FAILED:$$failed"; exit 1; }

.PHONY: test-cutover
test-cutover: go postgres ## The cutover on each version of PG_VERSIONS that is to be had
	@failed=; for v in $(PG_VERSIONS); do \
	  bin=$$(scripts/postgres-version.sh $$v) || continue; \
	  echo "== PostgreSQL $$v"; \
	  PGWALTZ_PG_BIN=$$bin LD_LIBRARY_PATH=$$bin/../lib $(GO) test -race -count=1 -v ./internal/cutover/... ./test/cutover | grep -E '^(ok|FAIL|---| +---| +[a-z_]+\.go:)' || failed="$$failed $$v"; \
	done; [[ -z $$failed ]] || { echo "FAILED:$$failed"; exit 1; }

.PHONY: test-pgsync
test-pgsync: go postgres ## The drop-in for pgsync on each version of PG_VERSIONS that is to be had
	@failed=; for v in $(PG_VERSIONS); do \
	  bin=$$(scripts/postgres-version.sh $$v) || continue; \
	  echo "== PostgreSQL $$v"; \
	  PGWALTZ_PG_BIN=$$bin LD_LIBRARY_PATH=$$bin/../lib $(GO) test -race -count=1 -v ./internal/pgsync ./test/pgsync | grep -E '^(ok|FAIL|---| +---| +[a-z_]+\.go:)' || failed="$$failed $$v"; \
	done; [[ -z $$failed ]] || { echo "FAILED:$$failed"; exit 1; }

.PHONY: lint-short
lint-short: go
	@unformatted=$$(gofmt -l .); \
	  if [[ -n $$unformatted ]]; then echo "gofmt -w is due:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags record ./decoder

.PHONY: lint
lint: lint-short ## gofmt, vet, staticcheck, functions that nothing calls, go.mod tidiness
	$(GO) tool staticcheck ./...
	@dead=$$($(GO) tool deadcode -test ./...); \
	  if [[ -n $$dead ]]; then echo "nothing calls these, not even a test:"; echo "$$dead"; exit 1; fi
	$(GO) mod tidy -diff
	$(GO) mod verify

.PHONY: fuzz
fuzz: go ## Every fuzz target for FUZZ_TIME each
	@$(GO) list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}} {{.ImportPath}}{{end}}' ./... | while read -r dir pkg; do \
	  for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$$dir"/*_test.go 2>/dev/null | sed 's/^func //' || true); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ_TIME) "$$pkg"; \
	  done; done

.PHONY: docs
docs: go ## Write docs/cli.md anew from the commands
	$(GO) generate ./cmd/pgwaltz

.PHONY: clean
clean: ## Remove what the other targets made
	rm -rf bin dist bench-results
	$(GO) clean -testcache
