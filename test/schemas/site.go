package main

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
	"go.yaml.in/yaml/v4"
)

// site is one database in both regions, with its two sidecars.
type site struct {
	name    string
	sources []source
	pair    *harness.Pair
	catalog *catalog
	keyless []*table // tables that check leaves out
}

// newSite makes the databases and the roles. Several sites share the two servers, and their sidecars
// have the same names of regions.
func (r *trial) newSite(ctx context.Context, name string, sources []source) (*site, error) {
	pair, err := r.fleet.Pair(ctx, name, harness.PairOptions{})
	if err != nil {
		return nil, err
	}
	s := &site{name: name, sources: sources, pair: pair}
	for _, g := range pair.Regions() {
		if err := r.roles(ctx, g); err != nil {
			return s, err
		}
		g.Sidecar.Set("postgres.slot", nil) // the default one names the cluster
		g.Sidecar.Set("log.level", "info")
		if r.identity == "keep" {
			g.Sidecar.Set("replica_identity", "keep")
		}
		super := g.Cluster.DSN(name)
		as := func(role string) string { return strings.Replace(super, "user=postgres", "user="+role, 1) }
		switch r.role {
		case "least":
			g.Sidecar.Set("postgres.dsn", as("sidecar"))
			g.Sidecar.Set("postgres.admin_dsn", super)
		case "owner":
			g.Sidecar.Set("postgres.dsn", as("sidecar"))
			g.Sidecar.Set("postgres.admin_dsn", as("owner"))
		}
	}
	return s, nil
}

// roles makes the role that owns the application's tables and the one of the sidecar.
func (r *trial) roles(ctx context.Context, g *harness.Region) error {
	_, err := g.Cluster.PSQL(ctx, g.Database, `
select 'create role owner login replication' where not exists (select from pg_roles where rolname = 'owner') \gexec
select 'create role sidecar login replication' where not exists (select from pg_roles where rolname = 'sidecar') \gexec
select format('alter database %I owner to owner', current_database()) \gexec
alter schema public owner to owner;`)
	return err
}

// loaded runs the SQL of the packages, as their scripts would: as the owner, in a schema of its own where
// several share a database.
func (r *trial) loaded() func(context.Context, *site) error {
	return func(ctx context.Context, s *site) error {
		for _, g := range s.pair.Regions() {
			for _, one := range s.sources {
				into := "public"
				if len(s.sources) > 1 || r.layout == "one" {
					into = one.name
				}
				head := fmt.Sprintf("set client_encoding = 'UTF8';\nset role owner;\ncreate schema if not exists %[1]s;\nset search_path = %[1]s;\n", into)
				if _, err := g.Cluster.PSQL(ctx, g.Database, head+one.sql); err != nil {
					return fmt.Errorf("load %s in region %s: %w", one.deb, g.Name, err)
				}
			}
		}
		conn, err := s.pair.A.Cluster.Connect(ctx, s.name)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		if s.catalog, err = loadCatalog(ctx, conn); err != nil {
			return err
		}
		least := 0
		for _, one := range s.sources {
			least += one.least
		}
		if len(s.catalog.tables) < least {
			return fmt.Errorf("the packages made %d tables, and %d were expected at least", len(s.catalog.tables), least)
		}
		r.say("%s: %d tables", s.name, len(s.catalog.tables))
		if r.identity == "full" {
			if err := s.identifyKeyless(ctx); err != nil {
				return err
			}
		}
		return s.catalog.learn(ctx, conn)
	}
}

// identifyKeyless gives every second table without a key the identity FULL, with which its rows are
// replicated; the others are left out.
func (s *site) identifyKeyless(ctx context.Context) error {
	n := 0
	for _, t := range s.catalog.tables {
		if len(t.key) > 0 {
			continue
		}
		if n++; n%2 == 0 {
			continue
		}
		for _, g := range s.pair.Regions() {
			if _, err := g.Cluster.PSQL(ctx, g.Database, "alter table "+t.sql+" replica identity full"); err != nil {
				return err
			}
		}
	}
	return nil
}

// finding is one line of `check --json`.
type finding struct {
	Severity, Code, What, Remedy, Table string
}

// proposed is a rule that a remedy writes out.
var proposed = regexp.MustCompile(`under tables\.rules: - (\{[^}]*\})`)

// setUp asks check, follows what it proposes for the configuration, and runs setup. What only setup can mend is
// no reason to stop before it.
func (r *trial) setUp(ctx context.Context, s *site) error {
	for _, g := range s.pair.Regions() {
		var rules []any
		seen := map[string]bool{}
		for round := 0; ; round++ {
			fs, err := check(ctx, g)
			if err != nil {
				return err
			}
			before := len(rules)
			for _, f := range fs {
				if f.Severity != "error" && f.Code != "not_a_version" {
					continue
				}
				m := proposed.FindStringSubmatch(f.Remedy)
				if m == nil || seen[m[1]] {
					continue
				}
				var rule any
				if err := yaml.Unmarshal([]byte(m[1]), &rule); err != nil {
					return fmt.Errorf("follow %q: %w", f.Remedy, err)
				}
				seen[m[1]] = true
				rules = append(rules, rule)
			}
			if len(rules) == before || round == 10 {
				break
			}
			g.Sidecar.Set("tables.rules", rules)
		}
		if err := g.Sidecar.Setup(ctx); err != nil {
			return err
		}
		fs, err := check(ctx, g)
		if err != nil {
			return err
		}
		if r.o.verbose {
			text, err := g.Sidecar.CLI(ctx, "check")
			if err != nil {
				return err
			}
			r.say("check of region %s, with %d rules:\n%s%s", g.Name, len(rules), text.Stdout, text.Stderr)
		}
		for _, f := range fs {
			if f.Severity == "error" {
				return fmt.Errorf("check finds an error behind setup: %s: %s; %s", f.Code, f.What, f.Remedy)
			}
		}
		s.leave(fs)
	}
	return nil
}

// leave takes the tables that check leaves out from those to write to; a table without a key that
// differs is what check has said.
func (s *site) leave(fs []finding) {
	s.keyless = nil
	for _, f := range fs {
		if f.Code != "table_without_identity" {
			continue
		}
		for _, t := range s.catalog.tables {
			if strings.ReplaceAll(t.sql, `"`, "") == f.Table {
				s.keyless = append(s.keyless, t)
			}
		}
	}
}

func check(ctx context.Context, g *harness.Region) ([]finding, error) {
	res, err := g.Sidecar.CLI(ctx, "check", "--json")
	if err != nil {
		return nil, err
	}
	var out struct{ Findings []finding }
	if err := json.Unmarshal([]byte(res.Stdout), &out); err != nil {
		return nil, fmt.Errorf("read what check says (exit code %d): %w: %s", res.Code, err, res.Stderr)
	}
	return out.Findings, nil
}

func (s *site) start(ctx context.Context) error {
	for _, g := range s.pair.Regions() {
		if err := g.Sidecar.Start(); err != nil {
			return err
		}
	}
	return s.pair.WaitReady(ctx, time.Minute)
}

func (s *site) inStep(ctx context.Context) error { return s.pair.WaitInStep(ctx, patience) }
