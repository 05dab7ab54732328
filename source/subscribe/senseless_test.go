package subscribe_test

import (
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// A frame that is well formed, in its place, and makes no sense goes into quarantine. The
// origin is asked for what belongs there, and what it sends then is delivered.
func TestSubscriptionSenselessFrames(t *testing.T) {
	t.Parallel()
	rel := func(change func(*wal.Relation)) *wal.Relation {
		r := &wal.Relation{Schema: "public", Name: "t", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{{Name: "id", OID: 23}, {Name: "v", OID: 25}}}
		if change != nil {
			change(r)
		}
		return r
	}
	row := wal.Tuple{{Kind: wal.Text, Bytes: []byte("1")}, {Kind: wal.Text, Bytes: []byte("x")}}
	noKey := wal.Tuple{{Kind: wal.Null}, row[1]}
	good := rel(nil)
	one := func(c wal.Change) *wal.Transaction {
		if c.Relation == nil {
			c.Relation = good
		}
		return &wal.Transaction{Changes: []wal.Change{c}}
	}
	type senseless struct {
		name string
		kind wire.Kind
		tx   *wal.Transaction
	}
	cases := []senseless{
		{"insert without a row", wire.Data, one(wal.Change{Op: wal.Insert})},
		{"update without a row", wire.Data, one(wal.Change{Op: wal.Update, Old: row})},
		{"delete without the old row", wire.Data, one(wal.Change{Op: wal.Delete})},
		{"delete with a new row", wire.Data, one(wal.Change{Op: wal.Delete, Old: row, New: row})},
		{"a key that is null", wire.Data, one(wal.Change{Op: wal.Insert, New: noKey})},
		{"a deleted key that is null", wire.Data, one(wal.Change{Op: wal.Delete, Old: noKey})},
		{"truncate with a row", wire.Data, one(wal.Change{Op: wal.Truncate, New: row})},
		{"an answer that is no repair", wire.Data, one(wal.Change{Op: wal.Update, New: row, Answer: true})},
		{"a repair that truncates", wire.Data, one(wal.Change{Op: wal.Truncate, Repair: true})},
		{"a key without columns", wire.Data, one(wal.Change{Op: wal.Insert, New: row, Relation: rel(func(r *wal.Relation) { r.PrimaryKey = []int{} })})},
		{"a key with a column twice", wire.Data, one(wal.Change{Op: wal.Insert, New: row, Relation: rel(func(r *wal.Relation) { r.PrimaryKey = []int{0, 0} })})},
		{"two columns of one name", wire.Data, one(wal.Change{Op: wal.Insert, New: row, Relation: rel(func(r *wal.Relation) { r.Columns[1].Name = "id" })})},
		{"a table without a name", wire.Data, one(wal.Change{Op: wal.Insert, New: row, Relation: rel(func(r *wal.Relation) { r.Name = "" })})},
		{"a name that ends early", wire.Data, one(wal.Change{Op: wal.Insert, New: row, Relation: rel(func(r *wal.Relation) { r.Schema = "a\x00b" })})},
		{"copied rows that update", wire.Copy, one(wal.Change{Op: wal.Update, Old: row, New: row})},
		{"copied rows with a notice", wire.Copy, &wal.Transaction{Notices: []wal.Notice{{Relation: good}}}},
		{"a heartbeat with a transaction", wire.Heartbeat, one(wal.Change{Op: wal.Insert, New: row})},
		{"a notice without a key", wire.Data, &wal.Transaction{Notices: []wal.Notice{{Relation: good, Yours: wal.Entry{Known: true, Row: noKey}}}}},
		{"a question without a key", wire.Data, &wal.Transaction{Notices: []wal.Notice{{Relation: good, Outcome: wal.Wanted}}}},
		{"an answer that names no key", wire.Data, &wal.Transaction{Notices: []wal.Notice{{Relation: good, Outcome: wal.Absent, Yours: wal.Entry{Known: true}}}}},
		{"a notice with an endless word", wire.Data, &wal.Transaction{Notices: []wal.Notice{{Relation: good, Type: strings.Repeat("x", 5000)}}}},
	}
	b := brokertest.Start(t, broker.Config{Region: origin})
	w := newWriter(t, b)
	r := start(t, b, checkpoint.Checkpoint{}, func(_ *subscribe.Config, r *reader) {
		r.answer = func(subscribe.RewindRequest) subscribe.RewindReply { return subscribe.RewindReply{Granted: true} }
	})
	w.write(2)
	for i, c := range cases {
		r.at(w.lsn)
		c.tx.XID, c.tx.CommitLSN, c.tx.EndLSN, c.tx.CommitTime = 9, w.lsn+1, w.lsn+5, 5
		if err := w.enc.Add(c.tx); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		for _, f := range w.enc.Cut(c.kind, 0, w.lsn+5, 1) {
			w.store(f.Data)
		}
		w.incarnation(uint32(i+2), w.lsn)
		w.write(2)
		r.at(w.lsn)
		if got := strings.Count(r.reasons(), "makes no sense"); got != i+1 {
			t.Fatalf("%s: %d frames are in quarantine, want %d:\n%s", c.name, got, i+1, r.reasons())
		}
	}
	if s := r.sub.State(); s.Gap != nil {
		t.Errorf("state %+v", s)
	}
}
