package replicator

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/decoder"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// encoded is a message that carries a tell.
func encoded(t *testing.T, said *wal.Transaction) wal.Message {
	t.Helper()
	data, err := wire.EncodeTransaction(said)
	if err != nil {
		t.Fatal(err)
	}
	return wal.Message{Transactional: true, Prefix: decoder.TellPrefix, Content: data}
}

func TestTells(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "t", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{{Name: "id", OID: 23, Key: true}}}
	row := wal.Tuple{{Kind: wal.Text, Bytes: []byte("1")}}
	repair := wal.Change{Op: wal.Update, Relation: rel, New: row, Stamp: wal.Stamp{Version: 3, UpdatedAt: 77}, Repair: true}
	notice := wal.Notice{Relation: rel, ID: [16]byte{1}, To: "us", Type: "insert_exists", Outcome: wal.Lost, Yours: wal.Entry{Known: true, Alive: true, Row: row}}
	applied := &wal.Transaction{
		XID: 7, Origin: "pgwaltz_us", Applied: true, CommitLSN: 100, EndLSN: 120, CommitTime: -5,
		Messages: []wal.Message{
			encoded(t, &wal.Transaction{CommitTime: 90, Changes: []wal.Change{repair}}),
			{Transactional: true, Prefix: "pgwaltz.other", Content: []byte("x")},
			encoded(t, &wal.Transaction{CommitTime: 91, Notices: []wal.Notice{notice, notice}}),
		},
	}
	told, err := TellsOf(applied)
	if first := wal.MarkOf(applied); first != wal.MarkOf(told.With(applied)) || first.CommitTime != 91 {
		t.Errorf("what is published is %s, what was decoded is %s", wal.MarkOf(told.With(applied)), first)
	}
	if err != nil || !told.Any() {
		t.Fatalf("%v, any %t", err, told.Any())
	}
	out := told.With(applied)
	if len(out.Changes) != 1 || !out.Changes[0].Repair || out.Changes[0].Stamp != repair.Stamp || len(out.Notices) != 2 || out.Messages != nil {
		t.Errorf("got %+v", out)
	}
	if out.Origin != "" || out.CommitTime != 91 || out.EndLSN != 120 || !out.Applied {
		t.Errorf("head %q %d %s", out.Origin, out.CommitTime, out.EndLSN)
	}
	if len(applied.Changes) != 0 || len(applied.Messages) != 3 {
		t.Errorf("the decoded transaction was altered: %+v", applied)
	}
	// One that tells nothing goes out as it came, but for its messages.
	own := &wal.Transaction{XID: 8, Origin: "legacy", CommitTime: 50, Changes: []wal.Change{{Op: wal.Insert, Relation: rel, New: row}}, Messages: []wal.Message{{Prefix: SyncPrefix}}}
	if told, err = TellsOf(own); err != nil || told.Any() {
		t.Errorf("%v, any %t", err, told.Any())
	}
	if out := told.With(own); len(out.Changes) != 1 || out.Messages != nil || out.Notices != nil || out.Origin != "legacy" || out.CommitTime != 50 {
		t.Errorf("got %+v", out)
	}
	// One that cannot be read is an error, not a loss.
	if _, err := TellsOf(&wal.Transaction{Messages: []wal.Message{{Prefix: decoder.TellPrefix, Content: []byte("PGWT")}}}); err == nil {
		t.Error("a broken tell is taken for nothing")
	}
}

// A notice that the peers would refuse goes out without its rows, so that it stops nothing; one that asks for a row of no key does not go out.
func TestTellsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	rel := &wal.Relation{Schema: "public", Name: "t", Identity: wal.IdentityFull, PrimaryKey: []int{0}, Columns: []wal.Column{{Name: "id", OID: 23, Key: true}}}
	row, none := wal.Tuple{{Kind: wal.Text, Bytes: []byte("1")}}, wal.Tuple{{Kind: wal.Null}}
	entry := func(r wal.Tuple) wal.Entry { return wal.Entry{Known: true, Alive: true, Row: r} }
	told, err := TellsOf(&wal.Transaction{Messages: []wal.Message{encoded(t, &wal.Transaction{Notices: []wal.Notice{
		{Relation: rel, ID: [16]byte{1}, Outcome: wal.Lost, Yours: entry(row), Mine: entry(none)},
		{Relation: rel, ID: [16]byte{2}, Outcome: wal.Wanted, Yours: entry(none)},
		{Relation: rel, ID: [16]byte{3}, Outcome: wal.Lost, Yours: entry(row), Mine: entry(row)},
	}})}})
	if err != nil {
		t.Fatal(err)
	}
	if len(told.notices) != 2 || told.notices[0].ID[0] != 1 || told.notices[0].Yours.Row != nil || told.notices[0].Mine.Row != nil || told.notices[1].ID[0] != 3 || told.notices[1].Mine.Row == nil {
		t.Errorf("got %+v", told.notices)
	}
	out := told.With(&wal.Transaction{XID: 9, CommitLSN: 100, EndLSN: 120})
	if err := (&wire.Packet{Transactions: []*wal.Transaction{out}}).Check(wire.Data); err != nil {
		t.Error(err)
	}
}
