package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// alterer alters tables, in one region first and in the others some time later, in the order in which they
// were drawn.
type alterer struct {
	rnd    *rand.Rand
	tables []*table
	kinds  []kind
	names  int // of columns that were added or renamed
	say    func(string, ...any)
}

// widened are types that a column may get instead of its own.
var widened = map[string][]string{
	"smallint": {"integer", "bigint"}, "integer": {"bigint", "numeric"}, "real": {"double precision"},
	"character varying(20)": {"text"}, "date": {"timestamp without time zone"}, "text": {"text COLLATE public.ci"},
}

// run alters until the context ends, and then makes in all regions what was made in one.
func (a *alterer) run(ctx context.Context, regions []*harness.Region, gap time.Duration) error {
	for harness.Pause(ctx, time.Duration(a.rnd.Int64N(int64(2*gap)))) == nil {
		t := a.tables[a.rnd.IntN(len(a.tables))]
		order := a.rnd.Perm(len(regions))
		if a.rnd.IntN(3) == 0 {
			if err := a.passing(ctx, regions[order[0]], t); err != nil {
				return err
			}
			continue
		}
		sql, err := a.draw(context.WithoutCancel(ctx), regions[order[0]], t)
		if err != nil {
			return err
		}
		if sql == "" {
			continue
		}
		a.say("region %s first: %s", regions[order[0]].Side, sql)
		later := a.rnd.Perm(5)[0]
		for i, n := range order {
			if i > 0 {
				_ = harness.Pause(ctx, time.Duration(later)*700*time.Millisecond)
			}
			if err := alter(context.WithoutCancel(ctx), regions[n], sql); err != nil {
				return err
			}
		}
	}
	return nil
}

// passing makes something stand in the way of a table's changes in one region, for a while.
func (a *alterer) passing(ctx context.Context, r *harness.Region, t *table) error {
	var do, undo string
	switch a.rnd.IntN(3) {
	case 0:
		do = fmt.Sprintf("alter table %s add constraint for_a_while check (mark is distinct from 'all1' and mark is distinct from 'm') not valid", t.name)
		undo = "alter table " + t.name + " drop constraint for_a_while"
	case 1:
		do = fmt.Sprintf("create trigger for_a_while before insert or update on %s for each row execute function public.louder(); alter table %s enable always trigger for_a_while", t.name, t.name)
		undo = "drop trigger for_a_while on " + t.name
	default:
		do = fmt.Sprintf("create trigger for_a_while after insert or update or delete on %s for each row execute function public.refuse(); alter table %s enable always trigger for_a_while", t.name, t.name)
		undo = "drop trigger for_a_while on " + t.name
	}
	a.say("region %s, for a while: %s", r.Side, do)
	if err := alter(context.WithoutCancel(ctx), r, do); err != nil {
		return err
	}
	_ = harness.Pause(ctx, time.Duration(1+a.rnd.IntN(4))*time.Second)
	return alter(context.WithoutCancel(ctx), r, undo)
}

// alter makes one alteration; it waits for the writers' locks and for a server that is down.
func alter(ctx context.Context, r *harness.Region, sql string) error {
	return harness.Poll(ctx, 2*time.Minute, 200*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		c, err := r.Cluster.Connect(ctx, r.Database)
		if err != nil {
			return false, err.Error(), nil
		}
		defer c.Close(ctx)
		_, err = c.Exec(ctx, "set lock_timeout = '2s'; begin; "+sql+"; commit")
		if err != nil && (strings.Contains(err.Error(), "55P03") || strings.Contains(err.Error(), "40P01") || strings.Contains(err.Error(), "57P0") || c.IsClosed()) {
			return false, err.Error(), nil
		}
		if err != nil {
			return false, "", fmt.Errorf("region %s: %s: %w", r.Side, sql, err)
		}
		return true, "", nil
	})
}

// draw chooses an alteration that the table can take as it is.
func (a *alterer) draw(ctx context.Context, r *harness.Region, t *table) (string, error) {
	var cols []column
	w := newWriter(r, 1, 1, a.tables, a.kinds, 1)
	defer w.close()
	err := harness.Poll(ctx, time.Minute, 200*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		if err := w.connect(ctx); err != nil {
			return false, err.Error(), nil
		}
		tx, err := w.conn.Begin(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		defer tx.Rollback(ctx)
		cols, err = w.columns(ctx, tx, t)
		if err != nil && w.conn.IsClosed() {
			return false, err.Error(), nil
		}
		return true, "", err
	})
	if err != nil {
		return "", err
	}
	var free []column
	for _, c := range cols {
		if !isKey(t, c.name) && !c.big && c.name != "mark" {
			free = append(free, c)
		}
	}
	a.names++
	k := a.kinds[a.rnd.IntN(len(a.kinds))]
	add := fmt.Sprintf("alter table %s add n%d %s", t.name, a.names, k.typ)
	if len(free) == 0 {
		return add, nil
	}
	c := free[a.rnd.IntN(len(free))]
	for _, d := range free {
		if d.name != c.name && d.kind.typ == c.kind.typ && a.rnd.IntN(2) == 0 {
			return fmt.Sprintf("alter table %[1]s rename %[2]s to passed_on; alter table %[1]s rename %[3]s to %[2]s; alter table %[1]s rename passed_on to %[3]s", t.name, c.name, d.name), nil
		}
	}
	switch x := a.rnd.IntN(15); {
	case x < 3:
		return add, nil
	case x == 12 && !t.late && !strings.Contains(t.create, "using index"):
		return fmt.Sprintf("alter table %s replica identity %s", t.name, []string{"full", "default"}[a.rnd.IntN(2)]), nil
	case x > 12:
		return fmt.Sprintf("alter table %s drop %s, add %s %s", t.name, c.name, c.name, k.typ), nil
	case x < 5:
		return add + " default " + k.spell(a.rnd, 4), nil
	case x < 7:
		return fmt.Sprintf("alter table %s drop %s", t.name, c.name), nil
	case x < 9:
		return fmt.Sprintf("alter table %s rename %s to r%d", t.name, c.name, a.names), nil
	case x < 11:
		to := widened[c.kind.typ]
		if len(to) == 0 {
			return "", nil
		}
		return fmt.Sprintf("alter table %s alter %s drop default, alter %s type %s", t.name, c.name, c.name, to[a.rnd.IntN(len(to))]), nil
	}
	return fmt.Sprintf("create index on %s (%s)", t.name, "mark"), nil
}
