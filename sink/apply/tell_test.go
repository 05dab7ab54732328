package apply

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/decoder"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// said is what a transaction of the bench's region tells the others.
type said struct {
	repairs []wal.Change
	notices []wal.Notice
	// pieces is the number of logical messages that carried it.
	messages, largest int
}

// slot makes a slot, so that what is written from now on can be decoded.
func (b *bench) slot() {
	b.t.Helper()
	b.exec("create publication p for all tables")
	b.query("select pg_create_logical_replication_slot(current_database()::text, 'pgoutput')::text")
	b.t.Cleanup(func() {
		if _, err := b.conn.Exec(context.Background(), "select pg_drop_replication_slot(current_database())"); err != nil {
			b.t.Error(err)
		}
	})
}

// told decodes what was written since the slot was made, as the publisher does: through the
// server's own decoding. It can be called again and finds the same.
func (b *bench) told() said {
	b.t.Helper()
	rows, err := b.conn.Query(b.t.Context(), `select data from pg_logical_slot_peek_binary_changes(current_database(), null, null, 'proto_version', '1', 'publication_names', 'p', 'messages', 'true')`)
	if err != nil {
		b.t.Fatal(err)
	}
	defer rows.Close()
	var out said
	d := decoder.New(decoder.Config{Marker: []byte("m")})
	for rows.Next() {
		var data []byte
		if err := rows.Scan(&data); err != nil {
			b.t.Fatal(err)
		}
		if data[0] == 'M' && bytes.Contains(data[:min(60, len(data))], []byte(decoder.TellPrefix)) {
			out.messages++
			out.largest = max(out.largest, len(data))
		}
		tx, err := d.Feed(0, data)
		if err != nil {
			b.t.Fatal(err)
		}
		if tx == nil || !tx.Applied {
			continue
		}
		if len(tx.Changes) > 0 {
			b.t.Errorf("an applied transaction comes out with %d changes", len(tx.Changes))
		}
		for _, m := range tx.Messages {
			one, err := wire.ParseTransaction(m.Content)
			if err != nil {
				b.t.Fatal(err)
			}
			out.repairs, out.notices = append(out.repairs, one.Changes...), append(out.notices, one.Notices...)
		}
	}
	if err := rows.Err(); err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (s said) String() string {
	var out []string
	for _, r := range s.repairs {
		out = append(out, fmt.Sprintf("repair %s %s", r.Op, rowText(r.New, r.Old)))
	}
	for _, n := range s.notices {
		out = append(out, fmt.Sprintf("%s told %s %d: %s against %s", n.To, n.Type, n.Outcome, entryText(n.Yours), entryText(n.Mine)))
	}
	slices.Sort(out) // one batch decides its keys in no order
	return strings.Join(out, "\n")
}

func rowText(rows ...wal.Tuple) string {
	for _, r := range rows {
		if r != nil {
			return string(r[0].Bytes) + "=" + string(r[1].Bytes)
		}
	}
	return "-"
}

func entryText(e wal.Entry) string {
	switch {
	case !e.Known:
		return "nothing"
	case !e.Alive:
		return "tombstone of " + string(e.Row[0].Bytes)
	}
	return rowText(e.Row)
}

func (b *bench) wantTold(want ...string) {
	b.t.Helper()
	if got := b.told().String(); got != strings.Join(want, "\n") {
		b.t.Errorf("told\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// What an apply transaction has to say is in the WAL with it, and both logs get the same ids.
func TestTellsStandInTheTransaction(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.slot()
	b.apply(b.tx(nil, insert(r, row("1", "0", 1, 1)), insert(r, row("2", "0", 1, 1)), insert(r, row("4", "0", 1, 1)), insert(r, row("5", "0", 1, 1))))
	b.wantTold("")
	b.exec("update acct set v='B', version=2, updated_at='2024-01-09 00:00:00+00' where id in (1, 4)")
	b.exec("update acct set v='B', version=3 where id = 2")
	b.exec("insert into acct values (3, 'B', 1, '2024-01-01 00:00:00+00')")
	b.exec("delete from acct where id = 5")
	b.apply(b.tx(nil,
		update(r, row("1", "0", 1, 1), row("1", "A", 2, 5)),
		update(r, row("2", "0", 1, 1), row("2", "A", 4, 5)),
		insert(r, row("3", "A", 2, 1)),
		remove(r, row("4", "0", 1, 1)),
		remove(r, row("5", "0", 1, 1)),
	))
	b.wantTold(
		"a told delete_missing 1: tombstone of 5 against nothing",
		"a told insert_exists 1: 3=A against 3=B",
		"a told update_deleted 2: tombstone of 4 against 4=B",
		"a told update_origin_differs 1: 2=A against 2=B",
		"a told update_origin_differs 2: 1=A against 1=B",
		"repair update 1=B", "repair update 4=B",
	)
	// The notices carry the very ids of this log.
	for _, n := range b.told().notices {
		b.want(fmt.Sprintf("select count(*) from pgwaltz.conflict where event_id = '%x'", n.ID), "1")
	}
	b.want("select count(*) from pgwaltz.conflict", "5")
	// What is rolled back tells nothing.
	before := b.told().String()
	conn := b.a.conn
	if _, err := conn.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	fx := effects{}
	fx.tell.notice(wal.Notice{Relation: r, To: "a"})
	if err := b.a.spill(t.Context(), &fx); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
	b.wantTold(before)
}

// A region that publishes nothing has nobody to tell.
func TestNobodyToTell(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.slot()
	b.a.cfg.Tell = false
	b.exec("insert into acct values (1, 'B', 3, '2024-01-01 00:00:00+00')")
	b.apply(b.tx(nil, insert(r, row("1", "A", 2, 1))))
	b.want("select type from pgwaltz.conflict", "insert_exists")
	b.wantTold("")
}

// Notices are recorded for their own keys, whatever stands beside them in the batch, and only
// by the region that is told; a repair among them is applied.
func TestNoticesAreThingsOfTheirOwn(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.apply(b.tx(nil, insert(r, row("8", "0", 1, 1)), insert(r, row("16", "0", 1, 1))))
	live := func(id, v string, version int) wal.Entry {
		return wal.Entry{Known: true, Alive: true, Stamp: wal.Stamp{Version: int64(version), UpdatedAt: 1704067200000000}, Row: row(id, v, version, 1)}
	}
	dead := func(id string, version int) wal.Entry {
		return wal.Entry{Known: true, Stamp: wal.Stamp{Version: int64(version), UpdatedAt: 1704067200000000}, Row: text(id, "\\N", "\\N", "\\N")}
	}
	notice := func(n byte, to, typ string, o wal.Outcome, yours, mine wal.Entry) wal.Notice {
		return wal.Notice{Relation: r, ID: [16]byte{15: n}, To: to, Type: typ, Outcome: o, Yours: yours, Mine: mine}
	}
	repair := update(r, nil, row("16", "R", 5, 1))
	repair.Repair, repair.Stamp = true, wal.Stamp{Version: 5, UpdatedAt: 1704067200000000}
	told := b.tx(nil)
	told.Applied = true
	told.Changes = []wal.Change{repair}
	told.Notices = []wal.Notice{
		notice(1, "b", "update_origin_differs", wal.Lost, live("8", "mine", 2), live("8", "theirs", 3)),
		notice(2, "b", "update_origin_differs", wal.Won, live("16", "mine", 4), live("16", "theirs", 3)),
		notice(3, "b", "update_deleted", wal.Lost, dead("8", 2), live("8", "theirs", 3)),
		notice(4, "c", "update_origin_differs", wal.Lost, live("9", "not for us", 4), live("9", "x", 5)),
		notice(5, "b", "update_missing", wal.Open, live("7", "parked there", 2), wal.Entry{Row: text("7", "\\N", "\\N", "\\N")}),
	}
	// Twice in one batch, and once more as another incarnation would bring it.
	again := *told
	again.CommitLSN, again.EndLSN = again.CommitLSN+100, again.EndLSN+100
	b.lsn += 100
	b.apply(told, b.tx(nil, update(r, row("8", "0", 1, 1), row("8", "next", 2, 2))), &again)
	b.want(acctRows, "8|next|2;16|R|5")
	b.want(`select event_id::text, type, verdict, coalesce(winner, '-'), coalesce(loser, '-'), key::text, local_row->>'v', remote_row->>'v' from pgwaltz.conflict where reason = 'told' order by event_id`,
		`00000000-0000-0000-0000-000000000001|update_origin_differs|apply|a|b|{"id": 8}|mine|theirs;`+
			`00000000-0000-0000-0000-000000000002|update_origin_differs|keep|b|a|{"id": 16}|mine|theirs;`+
			`00000000-0000-0000-0000-000000000003|update_deleted|apply|a|b|{"id": 8}|<nil>|theirs;`+
			`00000000-0000-0000-0000-000000000005|update_missing|park|-|-|{"id": 7}|parked there|<nil>`)
	// Neither counts as a transaction of the origin.
	b.want("select transactions from pgwaltz.checkpoint", "2")
}

// A repair of a giant conflict goes out part by part, in messages of bounded size, and nothing
// of it is kept in memory.
func TestGiantConflictTellsAsItGoes(t *testing.T) {
	t.Parallel()
	b, r := newBench(t, acctDDL), acct()
	b.slot()
	const rows = 400
	pad := strings.Repeat("x", 20_000)
	b.exec("insert into acct select g, 'B' || repeat('y', 20000), 9, '2024-01-01 00:00:00+00' from generate_series(1, 400) g")
	lsn, at := b.lsn+100, wal.Micros(1704067200000000)
	b.lsn += 100
	next := b.a.Checkpoint()
	next.Epoch, next.Incarnation = wal.Epoch{SystemID: 7, Timeline: 1, Slot: "s"}, 1
	for part := range 4 {
		tx := &wal.Transaction{XID: 9, CommitLSN: lsn, CommitTime: at, Part: uint32(part), More: part < 3}
		if !tx.More {
			tx.EndLSN = lsn + 50
		}
		for n := range rows / 4 {
			ch := insert(r, row(fmt.Sprint(part*rows/4+n+1), "A"+pad, 1, 1))
			if _, err := conflict.StampChange(conflict.Policy{}, conflict.ColumnsOf(r, "version", "updated_at"), &ch, at, 0); err != nil {
				t.Fatal(err)
			}
			tx.Changes = append(tx.Changes, ch)
		}
		next.FrameNo++
		next.EndLSN = max(next.EndLSN, tx.EndLSN)
		if err := b.a.Apply(t.Context(), []Unit{{Transactions: []*wal.Transaction{tx}, Next: next}}); err != nil {
			t.Fatal(err)
		}
		if kept := &b.a.openFx; len(kept.tell.repairs)+len(kept.tell.notices) > 0 {
			t.Errorf("after part %d the applier keeps %d bytes", part, kept.tell.size)
		}
	}
	got := b.told()
	if len(got.repairs) != rows || len(got.notices) != rows {
		t.Errorf("%d repairs and %d notices, want %d", len(got.repairs), len(got.notices), rows)
	}
	if got.largest > 1100<<10 || got.messages < 20 {
		t.Errorf("%d messages, the largest has %d bytes", got.messages, got.largest)
	}
	b.want("select count(*) from pgwaltz.conflict", "400")
}
