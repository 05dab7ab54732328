package apply

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/wal"
)

// asked are the tables that copies are asked for.
type asked struct{ tables []wal.RelationName }

func (a *asked) SetDue(_ context.Context, _ *pgx.Conn, tables []wal.RelationName) error {
	a.tables = append(a.tables, tables...)
	return nil
}

// A table is copied where stamps decided that are read from other columns here than at the origin, and
// not where they did not have to, or are the same by now.
func TestStampColumnsThatDiffer(t *testing.T) {
	t.Parallel()
	const other = acctDDL + "; alter table acct alter version type text"
	full, thin := acct(), acct()
	thin.Identity = wal.IdentityDefault
	for i := range thin.Columns {
		thin.Columns[i].Key = i == 0
	}
	was, x := row("1", "a", 1, 1), row("1", "x", 9, 3)
	for name, c := range map[string]struct {
		ddl  string
		rel  *wal.Relation
		here string // what is done to the row before the change comes
		ch   wal.Change
		due  bool
	}{
		"a new row":                       {other, full, "", insert(full, row("2", "b", 1, 1)), false},
		"a successor":                     {other, full, "", update(full, was, x), false},
		"the same":                        {other, full, "update acct set v = 'x', version = 9, updated_at = '2024-01-03 00:00:00+00'", update(full, was, x), false},
		"a conflict that is won":          {other, full, "update acct set v = 'y'", update(full, row("1", "z", 2, 2), x), true},
		"a conflict that is lost":         {other, full, "update acct set version = '99', updated_at = '2024-01-09 00:00:00+00'", update(full, was, x), true},
		"a delete of another row":         {other, full, "update acct set v = 'y', version = 2", remove(full, was), true},
		"a delete of this row":            {other, full, "", remove(full, was), false},
		"what was overwritten is unknown": {other, thin, "", update(thin, nil, x), true},
		"alike":                           {acctDDL, full, "update acct set v = 'y', version = 4", update(full, was, x), false},
		"another type of version":         {acctDDL + "; alter table acct alter version type numeric", full, "update acct set v = 'y', version = 4", update(full, was, x), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, a := newBench(t, c.ddl), &asked{}
			b.a.cfg.Copies = a
			b.exec("insert into acct values (1, 'a', '1', '2024-01-01 00:00:00+00')")
			if c.here != "" {
				b.exec(c.here)
			}
			b.apply(b.tx(nil, c.ch))
			b.want("select count(*) from pgwaltz.parked", "0")
			want := "[]"
			if c.due {
				want = "[public.acct]"
			}
			if got := fmt.Sprint(a.tables); got != want {
				t.Errorf("copies are asked for of %s, want %s", got, want)
			}
		})
	}
}

// In a transaction of many parts a copy is asked for at its end.
func TestStampColumnsThatDifferInAGiant(t *testing.T) {
	t.Parallel()
	b, r, a := newBench(t, acctDDL+"; alter table acct alter version type text"), acct(), &asked{}
	b.a.cfg.Copies = a
	b.exec("insert into acct values (1, 'y', '4', '2024-01-01 00:00:00+00')")
	first, last := halves(b.tx(nil, update(r, row("1", "a", 1, 1), row("1", "x", 9, 3)), insert(r, row("9", "c", 1, 1))))
	for _, p := range []*wal.Transaction{first, last} {
		if len(a.tables) > 0 {
			t.Errorf("copies are asked for before the end: %v", a.tables)
		}
		if err := deliver(t, b.a, p); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(a.tables); got != "[public.acct]" {
		t.Errorf("copies are asked for of %s", got)
	}
}

// A change that waited for a stamp column is held, and its table copied; so is one whose stamp is read by
// other columns because the origin has dropped one. One that waited for another column is not.
func TestChangesThatWaitedForStampColumns(t *testing.T) {
	t.Parallel()
	without := acct()
	without.Columns = append(without.Columns[:2:2], without.Columns[3:]...)
	noV := acct()
	noV.Columns = append(noV.Columns[:1:1], noV.Columns[2:]...)
	for name, c := range map[string]struct {
		ddl, alter string
		now        *wal.Relation // what the origin's table looks like by now
		due        bool
	}{
		"the column is here":              {"create table acct(id int primary key, v text, updated_at timestamptz)", "alter table acct add version bigint", acct(), true},
		"the origin has dropped it":       {"create table acct(id int primary key, v text, updated_at timestamptz)", "", without, true},
		"a column of another kind":        {"create table acct(id int primary key, version bigint, updated_at timestamptz)", "alter table acct add v text", acct(), false},
		"the origin has dropped that one": {"create table acct(id int primary key, version bigint, updated_at timestamptz)", "", noV, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, a := newBench(t, c.ddl), &asked{}
			b.a.cfg.Copies = a
			r := acct()
			b.apply(b.tx(nil, insert(r, row("1", "a", 1, 1))))
			b.want("select sqlstate from pgwaltz.parked", "42703")
			if c.alter != "" {
				b.exec(c.alter)
			}
			b.a.cfg.Suspects.shapes.see(c.now)
			b.retry()
			b.want("select (select count(*) from pgwaltz.parked), (select count(*) from acct)", "0|1")
			want := "[]"
			if c.due {
				want = "[public.acct]"
			}
			if got := fmt.Sprint(a.tables); got != want {
				t.Errorf("copies are asked for of %s, want %s", got, want)
			}
		})
	}
}

// An own delete keeps the stamp that was published, whatever columns there are by now.
func TestOwnDeletesKeepTheirStamp(t *testing.T) {
	t.Parallel()
	was, now := acct(), acct()
	now.Columns = append(now.Columns[:2:2], now.Columns[3:]...)
	ch := remove(was, row("1", "a", 1, 1))
	for _, self := range []bool{true, false} {
		r := NewRetrier(Config{Region: "b", Origin: "a", Self: self, Policy: newBench(t, acctDDL).a.cfg.Policy}, nil)
		t.Cleanup(r.a.Close)
		version, updatedAt := r.a.cfg.Policy.stampColumns(was.Ref())
		to := &target{rel: now}
		if to.cols.Version, to.cols.UpdatedAt = -1, 2; now.Column(updatedAt) != 2 || now.Column(version) != -1 {
			t.Fatal("the columns are not where they should be")
		}
		c := &parked.Change{Transaction: &wal.Transaction{Changes: []wal.Change{ch}}}
		if got := r.stampedAnew(c, was, to); got == self {
			t.Errorf("self %t: stamped anew is %t", self, got)
		}
	}
}
