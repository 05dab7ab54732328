package tombstone_test

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
)

// What is written down of a row behind the horizon.
func TestJudge(t *testing.T) {
	t.Parallel()
	const none = wal.MinMicros
	plain := func(at wal.Micros, lsn wal.LSN, writer uint32, ended wal.Micros) *tombstone.Noted {
		return &tombstone.Noted{Entry: tombstone.Entry{Live: true, Plain: true, At: at}, LSN: lsn, Writer: writer, Ended: ended}
	}
	live := func(at wal.Micros, next uint32, lsn wal.LSN, writer uint32, ended wal.Micros) *tombstone.Noted {
		return &tombstone.Noted{Entry: tombstone.Entry{Live: true, Next: next, At: at}, LSN: lsn, Writer: writer, Ended: ended}
	}
	dead := &tombstone.Noted{Entry: tombstone.EntryOf("k", 4, int64(wal.NullVersion), 700, false, false), LSN: 10, Writer: 3, Ended: none}
	gap := tombstone.Gap{End: 100, Least: 500, Floor: none, Read: 50}
	floor, tracked := gap, gap
	floor.Floor = 800
	tracked.Tracked, tracked.Newest = true, 900
	for name, c := range map[string]struct {
		gap   tombstone.Gap
		row   tombstone.Unread
		entry *tombstone.Noted
		want  string
	}{
		"nothing is known":                                            {gap, tombstone.Unread{Wrote: none, Committed: none, Ended: none}, nil, "0 500 plain"},
		"nothing is known, some is not merged":                        {floor, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 51}, nil, "0 801 plain"},
		"nothing is known, some is not merged, but it was read":       {floor, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 9}, nil, "0 500 plain"},
		"the server knows":                                            {gap, tombstone.Unread{Wrote: 900, Committed: 900, Ended: 900}, nil, ""},
		"an applier wrote it":                                         {gap, tombstone.Unread{Wrote: none, Committed: none, Ended: 900, Applied: true}, live(300, 0, 10, 1, 300), ""},
		"over an own row":                                             {gap, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 9}, plain(600, 10, 3, none), "0 601 plain"},
		"over an own row, not merged":                                 {floor, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 51}, plain(600, 10, 3, none), "0 801 plain"},
		"over an own row, not merged, by a transaction that was read": {floor, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 9}, plain(600, 10, 3, none), "0 601 plain"},
		"over an own row, the server knows":                           {gap, tombstone.Unread{Wrote: 900, Committed: 900, Ended: 900, Writer: 9}, plain(600, 10, 3, 610), ""},
		"over an own row, the clock was set back":                     {gap, tombstone.Unread{Wrote: 400, Committed: 400, Ended: 400, Writer: 9}, plain(600, 10, 3, 610), "0 601 plain"},
		"over an applied row":                                         {gap, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 9}, live(600, 0, 10, 3, none), "0 601"},
		"over an applied row, a later life":                           {gap, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 9}, live(600, 7, 10, 3, none), "7 601"},
		"over an applied row, the server knows":                       {gap, tombstone.Unread{Wrote: 900, Committed: 900, Ended: 900, Writer: 9}, live(600, 7, 10, 3, 610), "7 900"},
		"as it was applied":                                           {gap, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 3}, live(600, 0, 10, 3, none), ""},
		"as it was applied, behind a savepoint":                       {gap, tombstone.Unread{Wrote: 610, Committed: 610, Ended: 610, Writer: 4}, live(600, 0, 10, 3, 610), ""},
		"noted behind the gap":                                        {gap, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 9}, live(600, 0, 100, 3, none), ""},
		"noted by this already":                                       {gap, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 9}, live(600, 0, 99, 3, none), ""},
		"inserted over a tombstone":                                   {gap, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 9}, dead, "5 701"},
		"nothing is known, behind what is read":                       {gap, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 51}, nil, "0 501 plain"},
		"over an own row, behind what is read":                        {gap, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 51}, plain(600, 10, 3, none), "0 602 plain"},
		"over an applied row, behind what is read":                    {gap, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 1 << 30}, live(600, 0, 10, 3, none), "0 602"},
		"by a transaction that is older than the entry's":             {gap, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 51}, live(600, 0, 10, 52, none), "0 601"},
		"the same where ids begin anew":                               {tombstone.Gap{End: 100, Least: 500, Floor: none, Read: 1<<32 - 5}, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 3}, live(600, 0, 10, 1<<32-9, none), "0 602"},
		"the same where nothing is read":                              {tombstone.Gap{End: 100, Least: 500, Floor: none}, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 3}, live(600, 0, 10, 1<<32-9, none), "0 602"},
		"the server knows, and did not count then":                    {tracked, tombstone.Unread{Wrote: none, Committed: 950, Ended: 950, Writer: 51}, nil, "0 950 plain"},
		"over an applied row, the server did not count then":          {tracked, tombstone.Unread{Wrote: none, Committed: 950, Ended: 950, Writer: 51}, live(600, 7, 10, 3, none), "7 950"},
		"the server knew the times, and has lost them":                {tracked, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 51}, nil, "0 901 plain"},
		"the server has lost the times of what was read":              {tracked, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 50}, nil, "0 500 plain"},
		"another origin wrote it, which nobody publishes here":        {tracked, tombstone.Unread{Wrote: none, Committed: none, Ended: 950, Writer: 51}, nil, "0 501 plain"},
		"over the last of all times":                                  {gap, tombstone.Unread{Wrote: none, Committed: none, Ended: none, Writer: 9}, live(wal.MaxMicros, 0, 10, 3, none), "0 " + strconv.FormatInt(int64(wal.MaxMicros), 10)},
	} {
		got := ""
		if r, ok := c.gap.Judge(c.row, c.entry); ok {
			got = strconv.Itoa(int(r.Next)) + " " + strconv.FormatInt(int64(r.At), 10)
			if r.Plain {
				got += " plain"
			}
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// The entries are written as they were judged, once, and the index knows those that something is stamped from.
func TestRegain(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := database(t)
	rel := wal.RelationName{Schema: "public", Name: "t"}
	pgtest.Exec(t, c, `insert into pgwaltz.tombstone (relation, key, generation, version, updated_at, live, origin, lsn, plain, deleted_at) values
  ('public.t', '[own]', -1, -9223372036854775808, 600, true, 'a', '0/A', true, now() - interval '1 year'),
  ('public.t', '[applied]', -1, -9223372036854775808, 600, true, 'b', '0/A', false, now()),
  ('public.t', '[since]', -1, -9223372036854775808, 600, true, 'b', '0/64', false, now()),
  ('public.t', '[dead]', 4, -9223372036854775808, 600, false, 'b', '0/A', false, now())`)
	x := tombstone.NewIndex(0)
	if err := tombstone.Load(ctx, c, x); err != nil {
		t.Fatal(err)
	}
	gap := tombstone.Gap{End: 100, Least: 500, Floor: wal.MinMicros, Region: "a", Read: 7}
	var rows []tombstone.Unread
	for _, k := range []string{"[applied]", "[dead]", "[new]", "[own]", "[since]"} {
		rows = append(rows, tombstone.Unread{Key: k, Writer: 1, Wrote: wal.MinMicros, Committed: wal.MinMicros, Ended: wal.MinMicros})
	}
	for n, want := range []int{4, 0} {
		var noted int
		var high wal.Micros
		err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) (err error) {
			noted, high, err = gap.Regain(ctx, tx, x, rel, rows)
			return err
		})
		if err != nil || noted != want || n == 0 && high != 601 {
			t.Errorf("%d rows are noted, want %d; the highest time is %d: %v", noted, want, high, err)
		}
	}
	got := text(t, c, `select string_agg(format('%s %s %s %s %s %s', key, generation, updated_at, live, lsn, plain), E'\n' order by key) from pgwaltz.tombstone where deleted_at > now() - interval '1 hour'`)
	want := `[applied] -1 601 t 0/63 f
[dead] 4 601 t 0/63 f
[new] -1 500 t 0/63 t
[own] -1 601 t 0/63 t
[since] -1 600 t 0/64 f`
	if got != want {
		t.Errorf("the entries are\n%s\nwant\n%s", got, want)
	}
	items := make([]conflict.Item, 2)
	missing, wait := x.Below(100, []tombstone.Ref{{Relation: rel, Key: "[applied]"}, {Relation: rel, Key: "[dead]"}}, items)
	if len(missing) > 0 {
		found, err := tombstone.Lookup(ctx, c, 100, []tombstone.Ref{{Relation: rel, Key: "[applied]"}, {Relation: rel, Key: "[dead]"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range missing {
			items[i] = items[i].Join(found[i])
		}
	}
	if wait != nil || items[0].At != 601 || items[0].Next != 0 || items[1].At != 601 || items[1].Next != 5 || !items[1].Live {
		t.Errorf("the index says %+v", items)
	}
}

// A horizon holds for the database that it was stored in, also where that was copied file by file, and not for one that was
// restored from a dump.
func TestHorizon(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := database(t)
	if _, known, err := tombstone.LoadHorizon(ctx, c); known || err != nil {
		t.Errorf("a horizon is known: %v", err)
	}
	pgtest.Exec(t, c, "create table r (id int)", "insert into r values (1)")
	h, below, err := tombstone.ReadHorizon(ctx, c)
	if err != nil || below == 0 || h.XID == 0 {
		t.Fatalf("got %+v, %s: %v", h, below, err)
	}
	if err := tombstone.SaveHorizon(ctx, c, h); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, c, "insert into r values (2)", "begin", "savepoint a", "insert into r values (3)", "commit")
	if got, known, err := tombstone.LoadHorizon(ctx, c); !known || err != nil || got != h {
		t.Errorf("got %+v, want %+v: %v", got, h, err)
	}
	if got := text(t, c, "select string_agg(id::text, ' ' order by id) from r t where "+h.BehindSQL()); !strings.HasSuffix(got, "2 3") { // transactions of other tests may be older
		t.Errorf("behind the horizon are %s", got)
	}
	// As a dump brings it: written by another transaction.
	pgtest.Exec(t, c, "create table pgwaltz.h as select * from pgwaltz.horizon", "delete from pgwaltz.horizon", "insert into pgwaltz.horizon select * from pgwaltz.h")
	if _, known, err := tombstone.LoadHorizon(ctx, c); known || err != nil {
		t.Errorf("the horizon of a dump is known: %v", err)
	}
}

// text reads one value, "" for NULL.
func text(t *testing.T, c *pgx.Conn, sql string) string {
	t.Helper()
	var s *string
	if err := c.QueryRow(context.WithoutCancel(t.Context()), sql).Scan(&s); err != nil {
		t.Fatal(err)
	}
	if s == nil {
		return ""
	}
	return *s
}
