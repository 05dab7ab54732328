package decoder

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func text(s string) wal.Value { return wal.Value{Kind: wal.Text, Bytes: []byte(s)} }

var (
	null      = wal.Value{Kind: wal.Null}
	unchanged = wal.Value{Kind: wal.Unchanged}
)

// One row message in a transaction becomes one change.
func TestRows(t *testing.T) {
	t.Parallel()
	const d, f, i, n = wal.IdentityDefault, wal.IdentityFull, wal.IdentityIndex, wal.IdentityNothing
	tests := []struct {
		name     string
		identity wal.Identity
		msg      []byte
		want     wal.Change
	}{
		{
			"insert", d, insert(16400, "1", "x", nil),
			wal.Change{Op: wal.Insert, New: wal.Tuple{text("1"), text("x"), null}},
		},
		{
			"insert binary and empty", n, insert(16400, []byte{0, 1}, "", []byte{}),
			wal.Change{Op: wal.Insert, New: wal.Tuple{{Kind: wal.Binary, Bytes: []byte{0, 1}}, text(""), {Kind: wal.Binary, Bytes: []byte{}}}},
		},
		{
			"update", d, row('U', 16400, []byte("N"), tup("1", "y", true)),
			wal.Change{Op: wal.Update, New: wal.Tuple{text("1"), text("y"), unchanged}},
		},
		{
			"update of the key", i, row('U', 16400, []byte("K"), tup("1", nil, nil), []byte("N"), tup("2", "y", nil)),
			wal.Change{Op: wal.Update, Old: wal.Tuple{text("1"), null, null}, New: wal.Tuple{text("2"), text("y"), null}},
		},
		{
			"a key image fills an unchanged key and nothing else", d,
			row('U', 16400, []byte("K"), tup("1", nil, nil), []byte("N"), tup(true, true, "z")),
			wal.Change{Op: wal.Update, Old: wal.Tuple{text("1"), null, null}, New: wal.Tuple{text("1"), unchanged, text("z")}},
		},
		{
			"a key image of a partition fills what it has", f,
			row('U', 16400, []byte("K"), tup("1", nil, nil), []byte("N"), tup(true, true, "z")),
			wal.Change{Op: wal.Update, Old: wal.Tuple{text("1"), null, null}, New: wal.Tuple{text("1"), unchanged, text("z")}},
		},
		{
			"a full image fills what is unchanged", f,
			row('U', 16400, []byte("O"), tup("1", nil, "long"), []byte("N"), tup("1", true, true)),
			wal.Change{Op: wal.Update, OldFull: true, Old: wal.Tuple{text("1"), null, text("long")}, New: wal.Tuple{text("1"), null, text("long")}},
		},
		{
			"a full image that does not hold it fills nothing", f,
			row('U', 16400, []byte("O"), tup("1", "x", true), []byte("N"), tup("1", "y", true)),
			wal.Change{Op: wal.Update, OldFull: true, Old: wal.Tuple{text("1"), text("x"), unchanged}, New: wal.Tuple{text("1"), text("y"), unchanged}},
		},
		{
			"delete by key", d, row('D', 16400, []byte("K"), tup("1", nil, nil)),
			wal.Change{Op: wal.Delete, Old: wal.Tuple{text("1"), null, null}},
		},
		{
			"delete with the full row", f, row('D', 16400, []byte("O"), tup("1", nil, "b")),
			wal.Change{Op: wal.Delete, OldFull: true, Old: wal.Tuple{text("1"), null, text("b")}},
		},
		{"truncate", d, truncate(16400), wal.Change{Op: wal.Truncate}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tx := feedOne(t, New(Config{}), begin(7, 100), users(tt.identity), tt.msg, commit(100, 120))
			if len(tx.Changes) != 1 {
				t.Fatalf("%d changes, want 1", len(tx.Changes))
			}
			got := tx.Changes[0]
			if got.Relation == nil || got.Relation.String() != "public.users" || got.Relation.Identity != tt.identity {
				t.Errorf("relation %+v", got.Relation)
			}
			got.Relation = nil
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestTransactionHead(t *testing.T) {
	t.Parallel()
	d := New(Config{})
	feed(t, d, begin(7, 100))
	if !d.InTransaction() {
		t.Error("not in a transaction after Begin")
	}
	tx := feedOne(t, d, commit(100, 120))
	want := &wal.Transaction{XID: 7, CommitLSN: 100, EndLSN: 120, CommitTime: 946_684_801_000_000}
	if !reflect.DeepEqual(tx, want) {
		t.Errorf("got  %+v\nwant %+v", tx, want)
	}
	if d.InTransaction() {
		t.Error("in a transaction after Commit")
	}
}

func TestTruncateOfSeveral(t *testing.T) {
	t.Parallel()
	other := relation(16500, "public", "other", wal.IdentityDefault, col{"id", 23, true})
	tx := feedOne(t, New(Config{}), begin(7, 100), users('d'), other, truncate(16500, 16400), commit(100, 120))
	if len(tx.Changes) != 2 || tx.Changes[0].Relation.Name != "other" || tx.Changes[1].Relation.Name != "users" {
		t.Errorf("got %+v", tx.Changes)
	}
}

// Every message that must be refused, with its class.
func TestRefused(t *testing.T) {
	t.Parallel()
	huge := be.AppendUint32([]byte{'T'}, 0xffffffff)
	longLength := append(row('I', 16400, []byte("N"), []byte{0, 3, 't'}), 0x7f, 0xff, 0xff, 0xff, 'x')
	negative := append(row('I', 16400, []byte("N"), []byte{0, 3, 't'}), 0xff, 0xff, 0xff, 0xff, 'x')
	tests := []struct {
		name   string
		before [][]byte
		msg    []byte
		want   error
		typ    string
	}{
		{"empty", nil, nil, ErrMalformed, "empty"},
		{"unknown type", nil, []byte("?xyz"), ErrUnknownMessage, `'?'`},
		{"stream start", nil, []byte{'S', 0, 0, 0, 1, 1}, ErrUnknownMessage, "StreamStart"},
		{"stream stop", nil, []byte{'E'}, ErrUnknownMessage, "StreamStop"},
		{"stream commit", nil, []byte{'c'}, ErrUnknownMessage, "StreamCommit"},
		{"stream abort", nil, []byte{'A'}, ErrUnknownMessage, "StreamAbort"},
		{"begin prepare", nil, []byte{'b'}, ErrUnknownMessage, "BeginPrepare"},
		{"begin twice", [][]byte{begin(1, 10)}, begin(2, 20), ErrOutOfOrder, "Begin"},
		{"commit alone", nil, commit(10, 20), ErrOutOfOrder, "Commit"},
		{"commit of another", [][]byte{begin(1, 10)}, commit(11, 20), ErrOutOfOrder, "Commit"},
		{"commit without end", [][]byte{begin(1, 10)}, commit(10, 10), ErrMalformed, "Commit"},
		{"origin alone", nil, origin("x"), ErrOutOfOrder, "Origin"},
		{"origin without name", [][]byte{begin(1, 10)}, origin(""), ErrMalformed, "Origin"},
		{"insert alone", [][]byte{users('d')}, insert(16400, "1", "x", nil), ErrOutOfOrder, "Insert"},
		{"truncate alone", [][]byte{users('d')}, truncate(16400), ErrOutOfOrder, "Truncate"},
		{"transactional message alone", nil, message(true, "pgwaltz.x", ""), ErrOutOfOrder, "Message"},
		{"unknown relation", [][]byte{begin(1, 10)}, insert(16400, "1", "x", nil), ErrUnknownRelation, "Insert"},
		{"unknown relation in an echo", [][]byte{begin(1, 10), origin("x")}, insert(16400, "1"), ErrUnknownRelation, "Insert"},
		{"unknown relation of a truncate", [][]byte{begin(1, 10), users('d')}, truncate(16400, 1), ErrUnknownRelation, "Truncate"},
		{"too few columns", [][]byte{begin(1, 10), users('d')}, insert(16400, "1", "x"), ErrMalformed, "Insert"},
		{"too many columns", [][]byte{begin(1, 10), users('d')}, insert(16400, "1", "x", nil, nil), ErrMalformed, "Insert"},
		{"unknown kind", [][]byte{begin(1, 10), users('d')}, row('I', 16400, []byte("N"), []byte{0, 3, 'n', 'z', 'n'}), ErrMalformed, "Insert"},
		{"length beyond the end", [][]byte{begin(1, 10), users('d')}, longLength, ErrMalformed, "Insert"},
		{"negative length", [][]byte{begin(1, 10), users('d')}, negative, ErrMalformed, "Insert"},
		{"insert with an old tuple", [][]byte{begin(1, 10), users('d')}, row('I', 16400, []byte("K"), tup("1", nil, nil)), ErrMalformed, "Insert"},
		{"update without a new tuple", [][]byte{begin(1, 10), users('d')}, row('U', 16400, []byte("K"), tup("1", nil, nil)), ErrMalformed, "Update"},
		{"delete with a new tuple", [][]byte{begin(1, 10), users('d')}, row('D', 16400, []byte("N"), tup("1", nil, nil)), ErrMalformed, "Delete"},
		{"truncate of nothing", [][]byte{begin(1, 10)}, truncate(), ErrMalformed, "Truncate"},
		{"truncate with a huge count", [][]byte{begin(1, 10)}, append(huge, 0), ErrMalformed, "Truncate"},
		{"unknown identity", nil, users('x'), ErrMalformed, "Relation"},
		{"message with unknown flags", nil, append([]byte{'M', 2}, message(false, "p", "")[2:]...), ErrMalformed, "Message"},
		{"message longer than it is", nil, message(false, "p", "abc")[:14], ErrMalformed, "Message"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := New(Config{})
			feed(t, d, tt.before...)
			tx, err := d.Feed(0x16B3748, tt.msg)
			if tx != nil || !errors.Is(err, tt.want) {
				t.Fatalf("got %v, %v; want %v", tx, err, tt.want)
			}
			var e *Error
			if !errors.As(err, &e) || e.LSN != 0x16B3748 || e.Hint() == "" {
				t.Errorf("got %#v", err)
			}
			if got := err.Error(); !strings.HasPrefix(got, "decode "+tt.typ+" message at 0/16B3748: ") {
				t.Errorf("error %q", got)
			}
			if _, again := d.Feed(1, begin(9, 9)); again != err {
				t.Errorf("the next message got %v, want the same error", again)
			}
			d.Reset()
			if tx := feedOne(t, d, begin(9, 9), commit(9, 10)); tx.XID != 9 {
				t.Errorf("after Reset got %+v", tx)
			}
		})
	}
}

// Reset forgets the open transaction and the relations, and nothing that was given out.
func TestReset(t *testing.T) {
	t.Parallel()
	d := New(Config{})
	before := feedOne(t, d, begin(1, 10), users('d'), insert(16400, "1", "x", nil), commit(10, 20))
	feed(t, d, begin(2, 30), insert(16400, "2", "y", nil))
	d.Reset()
	if d.InTransaction() {
		t.Error("still in a transaction")
	}
	// The interrupted transaction comes again from its start.
	after := feedOne(t, d, begin(2, 30), users('d'), insert(16400, "2", "y", nil), commit(30, 40))
	if len(after.Changes) != 1 || after.Part != 0 {
		t.Errorf("after Reset got %+v", after)
	}
	if got := string(before.Changes[0].New[1].Bytes); got != "x" {
		t.Errorf("the earlier transaction now holds %q", got)
	}
	d.Reset()
	if _, err := d.Feed(0, begin(3, 50)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Feed(0, insert(16400, "3", "z", nil)); !errors.Is(err, ErrUnknownRelation) {
		t.Errorf("a relation outlived Reset: %v", err)
	}
}

// Appending to what one transaction holds must not reach into its neighbour's memory.
func TestTransactionsDoNotOverlap(t *testing.T) {
	t.Parallel()
	d := New(Config{})
	big := strings.Repeat("b", 2*largeRow)
	rows := []string{"one", "two", big, "three", big, "four"}
	var txs []*wal.Transaction
	feed(t, d, users('d'))
	for i, s := range rows {
		lsn := wal.LSN(100 * (i + 1))
		txs = append(txs, feedOne(t, d, begin(uint32(i), lsn), insert(16400, "1", s, nil), commit(lsn, lsn+1)))
	}
	for _, tx := range txs {
		v := tx.Changes[0].New
		_ = append(tx.Changes, wal.Change{})
		_ = append(v, text("over"))
		_ = append(v[0].Bytes, "over"...)
		_ = append(v[1].Bytes, "over"...)
	}
	for i, tx := range txs {
		v := tx.Changes[0].New
		if len(tx.Changes) != 1 || len(v) != 3 || string(v[0].Bytes) != "1" || !bytes.Equal(v[1].Bytes, []byte(rows[i])) {
			t.Errorf("transaction %d was overwritten", i)
		}
	}
}

// A partition may be identified by another index than its table: its old rows are not named by the
// key, and nobody could say which row a delete means.
func TestOldRowsThatAreNotNamed(t *testing.T) {
	t.Parallel()
	var told []wal.Op
	d := New(Config{
		Key: func(rel *wal.Relation) error {
			rel.PrimaryKey, rel.Partitioned, rel.NotNull = []int{0}, true, []int{0, 1}
			return nil
		},
		OnNameless: func(_ *wal.Relation, op wal.Op) { told = append(told, op) },
	})
	tx := feedOne(t, d, begin(7, 100), users(wal.IdentityFull),
		row('D', 16400, []byte("K"), tup(nil, "x", nil)),
		row('U', 16400, []byte("K"), tup(nil, "x", nil), []byte("N"), tup("2", "y", true)),
		row('D', 16400, []byte("K"), tup("3", nil, nil)),
		row('D', 16400, []byte("O"), tup("4", nil, nil)), // called full, as the table's identity is
		row('D', 16400, []byte("O"), tup("5", "x", nil)),
		row('U', 16400, []byte("O"), tup("6", nil, nil), []byte("N"), tup("7", "x", true)),
		commit(100, 120))
	if len(tx.Changes) != 5 || tx.Changes[0].Old != nil || tx.Changes[0].New[2].Kind != wal.Unchanged || tx.Changes[1].Op != wal.Delete ||
		tx.Changes[2].OldFull || !tx.Changes[3].OldFull || tx.Changes[4].OldFull || tx.Changes[4].New[2].Kind != wal.Unchanged {
		t.Errorf("changes %+v", tx.Changes)
	}
	if !reflect.DeepEqual(told, []wal.Op{wal.Delete, wal.Update}) {
		t.Errorf("told %v", told)
	}
}

// A partition with a key of its own says nothing of the row that an update of a table without a key
// changes.
func TestUpdatesWithoutAnyOldRow(t *testing.T) {
	t.Parallel()
	told := 0
	d := New(Config{OnNameless: func(*wal.Relation, wal.Op) { told++ }})
	tx := feedOne(t, d, begin(7, 100), users(wal.IdentityFull), row('U', 16400, []byte("N"), tup("2", "y", true)), insert(16400, "3", "x", nil), commit(100, 120))
	if len(tx.Changes) != 1 || tx.Changes[0].Op != wal.Insert || told != 1 {
		t.Errorf("%d told, changes %+v", told, tx.Changes)
	}
}

// An old row under a deferrable key has all values, also where they are NULL: a deferrable key is no identity.
func TestOldRowsOfNulls(t *testing.T) {
	t.Parallel()
	for _, deferrable := range []bool{false, true} {
		d := New(Config{Key: func(rel *wal.Relation) error {
			rel.PrimaryKey, rel.Partitioned, rel.Deferrable = []int{0}, true, deferrable
			return nil
		}})
		tx := feedOne(t, d, begin(7, 100), users(wal.IdentityFull), row('D', 16400, []byte("O"), tup("4", nil, nil)), commit(100, 120))
		if len(tx.Changes) != 1 || tx.Changes[0].OldFull != deferrable {
			t.Errorf("deferrable %v: changes %+v", deferrable, tx.Changes)
		}
	}
}
