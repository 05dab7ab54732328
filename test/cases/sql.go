package cases

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

const acctTable = `create table %[1]s(id int primary key, v text, big text, version bigint not null default 0, updated_at timestamptz not null default now(), origin_node text not null default 'x');
alter table %[1]s alter big set storage external;`

var identRE = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

func (x *run) std(ctx context.Context, table string) error {
	if !identRE.MatchString(table) {
		return fmt.Errorf("make standard table %q: want a plain name", table)
	}
	for _, r := range x.p.Regions() {
		if err := x.psql(ctx, r, fmt.Sprintf(acctTable, table)); err != nil {
			return err
		}
	}
	for _, r := range x.p.Regions() {
		if !x.setup[r.Side] {
			return nil
		}
	}
	return x.setupSides(ctx, "both")
}

func (x *run) section(ctx context.Context, s Step) error {
	if s.Name == "C" && x.p.C == nil {
		if x.third == nil {
			return fmt.Errorf("use the third cluster: --@pg.C create comes first")
		}
		_, err := x.third.PSQL(ctx, x.p.Name, s.Body)
		return err
	}
	rs, err := x.regions(s.Name)
	if err != nil {
		return err
	}
	for _, r := range rs {
		if err := x.psql(ctx, r, silence(s.Body)); err != nil {
			return fmt.Errorf("on %s: %w", r.Side, err)
		}
	}
	return nil
}

var silentRE = regexp.MustCompile(`(?i)^\s*set\s+session_replication_role\s*=\s*replica\s*;`)
var insertRE = regexp.MustCompile(`(?i)(?:^|;)\s*insert\b`)

// silence gives a section that changes rows behind the replicator's back a replication
// origin of its own, so that what it does is nobody's local write. A section that inserts
// is an ordinary one: nothing can be lost by inserting.
func silence(sql string) string {
	if !silentRE.MatchString(sql) || insertRE.MatchString(quotedRE.ReplaceAllString(sql, "''")) {
		return sql
	}
	return `\o /dev/null
select pg_replication_origin_create('case_silent') where not exists (select 1 from pg_replication_origin where roname = 'case_silent');
select pg_replication_origin_session_setup('case_silent');
\o
` + sql
}

func (x *run) psql(ctx context.Context, r *harness.Region, sql string) error {
	_, err := r.Cluster.PSQL(ctx, r.Database, sql)
	return err
}

// rows runs a query text and joins the rows of its results with " ; ".
func (x *run) rows(ctx context.Context, side, sql string) (string, error) {
	cluster, db := x.third, x.p.Name
	if side != "C" || x.p.C != nil {
		r, err := x.p.Region(side)
		if err != nil {
			return "", err
		}
		cluster = r.Cluster
	}
	if cluster == nil {
		return "", fmt.Errorf("use the third cluster: --@pg.C create comes first")
	}
	out, err := cluster.PSQL(ctx, db, sql+"\n;")
	if err != nil {
		return "", err
	}
	return strings.ReplaceAll(strings.TrimSuffix(out, "\n"), "\n", " ; "), nil
}

func (x *run) query(ctx context.Context, s Step) error {
	got, err := x.rows(ctx, strings.TrimSuffix(s.Name, "?"), s.Arg)
	if err != nil {
		return err
	}
	want := strings.TrimSpace(*s.Expect)
	if normal(got) != normal(want) {
		return fmt.Errorf("got  %s  want  %s", shorten(got), want)
	}
	return nil
}

// normal trims blanks around rows; blanks inside values stay.
func normal(s string) string {
	parts := strings.Split(s, " ; ")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return strings.TrimSpace(strings.Join(parts, " ; "))
}

func shorten(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}

// sqlError reads `A: SQLSTATE sql`.
func (x *run) sqlError(ctx context.Context, arg string) error {
	side, rest := cutSide(arg)
	want, sql, _ := strings.Cut(rest, " ")
	r, err := x.p.Region(side)
	if err != nil {
		return err
	}
	got, err := r.Cluster.SQLState(ctx, r.Database, sql)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("statement ended with %q, want SQLSTATE %s", got, want)
	}
	return nil
}

// publication changes what the product's publication holds, after setup has made it.
func (x *run) publication(ctx context.Context, s Step) error {
	sql := "alter publication pgwaltz set " + strings.TrimPrefix(s.Arg, "with ")
	if s.Name == "pubtable" {
		sql = "alter publication pgwaltz set table " + s.Arg
	}
	x.pub = append(x.pub, sql)
	for _, r := range x.p.Regions() {
		if x.setup[r.Side] {
			if err := x.psql(ctx, r, sql); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *run) setupSides(ctx context.Context, side string) error {
	if side == "" {
		side = "both"
	}
	rs, err := x.regions(side)
	if err != nil {
		return err
	}
	for _, r := range rs {
		if err := r.Sidecar.Setup(ctx); err != nil {
			return err
		}
		x.setup[r.Side] = true
		for _, sql := range x.pub {
			if err := x.psql(ctx, r, sql); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *run) waitStep(ctx context.Context, arg string) error {
	limit := x.wait
	if arg != "" {
		d, err := time.ParseDuration(arg)
		if err != nil {
			return fmt.Errorf("read limit: %w", err)
		}
		limit = d
	}
	return x.p.WaitInStep(ctx, limit)
}

func (x *run) equal(ctx context.Context, arg string) error {
	if strings.Contains(arg, "(") {
		return fmt.Errorf("compare %q: name tables, they are compared in all regions", arg)
	}
	return x.p.Equal(ctx, strings.FieldsFunc(arg, func(r rune) bool { return r == ',' || r == '\n' })...)
}

func (x *run) auditSteps(ctx context.Context, steps []Step) error {
	for _, s := range steps {
		m, err := parseAudit(x.expand(s.Arg))
		if err != nil {
			return err
		}
		for side, e := range m {
			x.audit[side] = append(x.audit[side], e)
		}
	}
	for _, r := range x.p.Regions() {
		want := x.audit[r.Side]
		if len(want) == 0 {
			continue
		}
		got, err := r.Conflicts(ctx)
		if err != nil {
			return err
		}
		if err := matchAudit(r.Side, want, got); err != nil {
			return err
		}
	}
	return nil
}
