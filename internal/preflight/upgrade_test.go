package preflight_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// columnsOfOurs lists the columns that a later program may have added: it has to be possible for tables that hold rows. What node says
// is read before anything is planned.
const columnsOfOurs = `from pg_attribute a join pg_class c on c.oid = a.attrelid left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
	where c.relnamespace = 'pgwaltz'::regnamespace and c.relkind = 'r' and c.relname <> 'node' and a.attnum > 0 and not a.attisdropped and (not a.attnotnull or d.oid is not null)
	and not exists (select from pg_index i where i.indrelid = c.oid and a.attnum = any(i.indkey::int2[])) and a.attidentity = ''`

// A database that an earlier program has set up lacks columns that came since: check says so, run would not start, and setup adds them.
func TestSetupAddsColumnsOfLaterPrograms(t *testing.T) {
	t.Parallel()
	w := newSite(t, logical)
	w.exec(`create table public.a (id int primary key)`)
	cfg := w.config("postgres", "")
	w.apply(w.admin, cfg)
	described := `select string_agg(format('%s.%s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)), E'\n' order by 1, c.relname, a.attname) ` + columnsOfOurs
	before := w.text(described)
	n := 0
	for line := range strings.Lines(w.text(`select string_agg(format('alter table pgwaltz.%I drop column %I', c.relname, a.attname), E'\n') ` + columnsOfOurs)) {
		w.exec(strings.TrimSpace(line))
		n++
	}
	if n < 60 {
		t.Fatalf("only %d columns are tried", n)
	}
	fs := w.check(w.admin, cfg)
	has(t, fs, preflight.Error, "schema_outdated", "table pgwaltz.stream lacks column passed", "pgwaltz setup")
	if got := strings.Count(fmt.Sprint(codes(fs, preflight.Error)), "schema_outdated"); got != n {
		t.Errorf("%d columns are missed, %d are gone", got, n)
	}
	w.apply(w.admin, cfg)
	if after := w.text(described); after != before {
		t.Errorf("after setup\n%s\nbefore\n%s", after, before)
	}
	if errs := w.check(w.admin, cfg).Errors(); len(errs) > 0 {
		t.Errorf("check after setup: %v", errs)
	}
	if again := w.apply(w.admin, cfg); again.Pending() != 0 {
		t.Errorf("%d statements are pending still", again.Pending())
	}
	w.drop()
}
