package complete

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// patience bounds the wait for a transaction that is in the WAL already to become visible.
const patience = time.Minute

// How long a lock on the table is waited for: LOCK TABLE or VACUUM FULL may hold it for minutes,
// and all other tables wait behind this one. Without the row the change goes out as it is; a peer
// that cannot do without the missing values parks it.
const (
	lockPatience = "3s"
	lockAgain    = "20ms" // while the table is known to be locked
)

// wholeBytes is how many bytes of rows are read back whole for one transaction, or part of one.
// What is above that goes out with digests.
const wholeBytes = 8 << 20

// wholeRows is how many rows are read back whole at once.
const wholeRows = 16

// reread asks for what changes lack, and returns those that are left out because their row is
// gone. An update gets the digests of the values that it did not touch: a receiver that
// has this row has them. What came out of a change of the key is an insert by now, of a row that
// no region has under its new key, so it gets the values themselves.
func (c *Completer) reread(ctx context.Context, conn *pgx.Conn, t *table, txs []*wal.Transaction, rel *wal.Relation, changes []*wal.Change) (gone []*wal.Change, err error) {
	var moved []*wal.Change
	digests := map[string][]*wal.Change{} // by the columns that lack
	for _, ch := range changes {
		if ch.Op == wal.Insert {
			moved = append(moved, ch)
			continue
		}
		digests[lacking(ch)] = append(digests[lacking(ch)], ch)
	}
	if len(t.key.Columns) != len(rel.PrimaryKey) {
		return nil, fmt.Errorf("read rows back: the key here is another one")
	}
	wait := lockPatience
	if t.locked {
		wait = lockAgain
	}
	if err := beginBehind(ctx, conn, waiting(txs), wait); err != nil {
		return nil, fmt.Errorf("read rows back: %w", err)
	}
	defer conn.Exec(context.WithoutCancel(ctx), "rollback")
	t.locked = false
	if same, err := sameColumns(ctx, conn, rel); err != nil || !same {
		return nil, t.asItIs(err)
	}
	for len(moved) > 0 && c.whole < wholeBytes {
		n := min(len(moved), wholeRows)
		missing, err := c.readWhole(ctx, conn, t, rel, moved[:n])
		if err != nil {
			return nil, t.asItIs(err)
		}
		gone, moved = append(gone, missing...), moved[n:]
	}
	for _, ch := range moved {
		digests[lacking(ch)] = append(digests[lacking(ch)], ch)
	}
	for lack, open := range digests {
		missing, err := readDigests(ctx, conn, t, rel, lack, open)
		if err != nil {
			return nil, t.asItIs(err)
		}
		gone = append(gone, missing...)
	}
	if gone, err = c.superseded(ctx, conn, txs, rel, gone); err != nil {
		return nil, t.asItIs(err)
	}
	return gone, nil
}

// sameColumns reports whether the columns of a relation still are called what it says: else values of others would be read in
// their place. From here on the transaction holds a lock by which they stay so.
func sameColumns(ctx context.Context, conn *pgx.Conn, rel *wal.Relation) (bool, error) {
	if !rel.Numbered() {
		return true, nil
	}
	var b strings.Builder
	for i := range rel.Columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("t." + statement.Quote(rel.Columns[i].Name))
	}
	rr := conn.PgConn().ExecParams(ctx, "select "+b.String()+" from "+statement.Table(rel.Schema, rel.Name)+" as t limit 0", nil, nil, nil, nil)
	same := true
	for i, f := range rr.FieldDescriptions() {
		same = same && wal.ColumnID(f.TableOID, int16(f.TableAttributeNumber)) == rel.Columns[i].ID
	}
	_, err := rr.Close()
	return same, err
}

// waiting are the transactions some of whose changes lack a value.
func waiting(txs []*wal.Transaction) []wal.XID {
	var xids []wal.XID
	for _, tx := range txs {
		if slices.ContainsFunc(tx.Changes, func(ch wal.Change) bool { return partial(&ch) }) {
			xids = append(xids, tx.XID)
		}
	}
	return xids
}

// superseded returns those of some changes whose row is gone that nobody needs any more: the row's
// delete follows in the WAL, or a tombstone above the change came from another region. What is above
// the tombstone has to go out though its values are lost here: other regions may have them, and the
// self-merge asks them. So has a time that is not the commit time, and a generation above all that was
// known: it was lifted, later ones of the key are lifted above it, and the self-merge has to write it down.
func (c *Completer) superseded(ctx context.Context, conn *pgx.Conn, txs []*wal.Transaction, rel *wal.Relation, gone []*wal.Change) ([]*wal.Change, error) {
	if len(gone) == 0 {
		return nil, nil
	}
	keys := make([]string, len(gone))
	for i, ch := range gone {
		keys[i] = string(ch.AppendKey(nil))
	}
	ledger := rel.Ref()
	if c.Ledger != nil {
		ledger = c.Ledger(rel)
	}
	found, err := tombstone.Read(ctx, conn, ledger, keys)
	if err != nil {
		return nil, err
	}
	policy, stampless := c.policy(rel)
	commits := map[*wal.Change]wal.Micros{}
	for _, tx := range txs {
		for i := range tx.Changes {
			if partial(&tx.Changes[i]) {
				commits[&tx.Changes[i]] = tx.CommitTime
			}
		}
	}
	left := gone[:0]
	for i, ch := range gone {
		if ch.Raised || stampless && ch.Stamp.UpdatedAt != commits[ch] {
			continue
		}
		e, ok := found[keys[i]]
		if !ok || e.Live || !policy.Outlives(ch, commits[ch], conflict.Side{Known: true, Stamp: e.Stamp, DeletedAt: e.Stamp.UpdatedAt}) {
			left = append(left, ch)
		}
	}
	return left, nil
}

// asItIs lets changes go out as they are where their rows cannot be read: somebody holds the
// table, or it is another one by now. The receiver sets them aside and asks.
func (t *table) asItIs(err error) error {
	if err == nil {
		return nil
	}
	if t.locked = state(err) == "55P03"; t.locked || another(err) {
		return nil
	}
	return fmt.Errorf("read rows back: %w", err)
}

// another reports whether the table is another one by now: a name that is not there, a key of a
// type that does not take the values, a value of the row that cannot be computed, a right that was
// taken away. It is so whenever it is tried, so the change goes out as it is.
func another(err error) bool {
	switch code := state(err); {
	case len(code) != 5:
		return false
	default:
		return code[:2] == "42" || code[:2] == "22" || code[:2] == "0A" || code[:2] == "3F"
	}
}

func state(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// lacking marks the columns whose values are absent.
func lacking(ch *wal.Change) string {
	m := make([]byte, len(ch.New))
	for i := range ch.New {
		m[i] = '.'
		if ch.New[i].Absent() {
			m[i] = 'd'
		}
	}
	return string(m)
}

// readWhole gives changes the values that they lack, as they are now. It returns those whose row is
// gone.
func (c *Completer) readWhole(ctx context.Context, conn *pgx.Conn, t *table, rel *wal.Relation, open []*wal.Change) (gone []*wal.Change, err error) {
	lack := map[string]bool{}
	for _, ch := range open {
		for i := range ch.New {
			if ch.New[i].Absent() {
				lack[rel.Columns[i].Name] = true
			}
		}
	}
	var names []string
	var at []int
	for i := range rel.Columns {
		if lack[rel.Columns[i].Name] {
			names, at = append(names, rel.Columns[i].Name), append(at, i)
		}
	}
	rows := make([]wal.Tuple, len(open))
	err = readBack(ctx, conn, t, rel, open, func(s statement.Shape) string { return statement.Read(s, names) }, pgx.TextFormatCode, func(n int, v [][]byte) {
		rows[n] = tuple(len(rel.Columns), at, v)
		c.whole += rows[n].Size()
	})
	if err != nil {
		return nil, err
	}
	for i, ch := range open {
		if rows[i] == nil {
			gone = append(gone, ch)
			continue
		}
		ch.New = ch.New.Filled(rows[i])
	}
	return gone, nil
}

// readDigests gives changes the digests of the values that they lack. It returns those whose row is
// gone.
func readDigests(ctx context.Context, conn *pgx.Conn, t *table, rel *wal.Relation, lack string, open []*wal.Change) (gone []*wal.Change, err error) {
	var columns []statement.Column
	var at []int
	for i := range lack {
		if lack[i] == 'd' {
			columns, at = append(columns, statement.Column{Name: rel.Columns[i].Name, Type: textType(rel.Columns[i].OID)}), append(at, i)
		}
	}
	there := make([]bool, len(open))
	err = readBack(ctx, conn, t, rel, open, func(s statement.Shape) string { return statement.Digests(s, columns) }, pgx.BinaryFormatCode, func(n int, v [][]byte) {
		there[n] = true
		row := append(wal.Tuple(nil), open[n].New...)
		for i, d := range v {
			if d != nil {
				row[at[i]] = wal.Value{Kind: wal.Digest, Bytes: append(make([]byte, 0, len(d)), d...)}
			}
		}
		open[n].New = row
	})
	if err != nil {
		return nil, err
	}
	for i, ch := range open {
		if !there[i] {
			gone = append(gone, ch)
		}
	}
	return gone, nil
}

// textType names the types whose values are their own texts.
func textType(oid uint32) string {
	if oid == wal.OIDText || oid == wal.OIDVarchar {
		return "text"
	}
	return ""
}

// readBack reads something of the rows of some changes; got is called with the place of the
// change and the columns.
func readBack(ctx context.Context, conn *pgx.Conn, t *table, rel *wal.Relation, open []*wal.Change, sql func(statement.Shape) string, format int16, got func(int, [][]byte)) error {
	s := statement.Shape{Table: statement.Table(rel.Schema, rel.Name), Only: !t.key.Partitioned, Key: t.key.Params()}
	args := []any{pgx.QueryResultFormats{format}}
	for _, k := range rel.PrimaryKey {
		texts := make([]*string, len(open))
		for i, ch := range open {
			texts[i] = wal.TextOf(rel.Columns[k].OID, ch.New[k])
		}
		args = append(args, texts)
	}
	found, err := conn.Query(ctx, sql(s), args...)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		v := found.RawValues()
		n, err := place(v[0], format)
		if err != nil || n < 1 || n > len(open) {
			return fmt.Errorf("place %q", v[0])
		}
		got(n-1, v[1:])
	}
	return found.Err()
}

// place reads an ordinal.
func place(v []byte, format int16) (int, error) {
	if format == pgx.TextFormatCode {
		return strconv.Atoi(string(v))
	}
	if len(v) != 8 {
		return 0, errors.New("not a number")
	}
	return int(binary.BigEndian.Uint64(v)), nil
}

// tuple is a row of n columns of which those at some places were read.
func tuple(n int, at []int, v [][]byte) wal.Tuple {
	row := make(wal.Tuple, n)
	for i := range row {
		row[i].Kind = wal.Null
	}
	for i, c := range at {
		if v[i] != nil {
			row[c] = wal.Value{Kind: wal.Text, Bytes: append(make([]byte, 0, len(v[i])), v[i]...)}
		}
	}
	return row
}

// beginBehind opens a read-only transaction whose snapshot sees the given ones, and which waits so
// long for a lock: a commit is in the WAL, and may be decoded, some time before it is visible.
func beginBehind(ctx context.Context, conn *pgx.Conn, xids []wal.XID, lock string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		snapshot, err := begin(ctx, conn, lock)
		if err != nil {
			return err
		}
		hidden, err := hides(snapshot, xids)
		if err != nil || hidden == nil {
			return err
		}
		if _, err := conn.Exec(ctx, "rollback"); err != nil {
			return err
		}
		wait := time.NewTimer(5 * time.Millisecond)
		select {
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("transaction %d is in the WAL and not visible: %w", *hidden, context.Cause(ctx))
		case <-wait.C:
		}
	}
}

// begin opens a transaction in one round trip, and returns its snapshot.
func begin(ctx context.Context, conn *pgx.Conn, lock string) (string, error) {
	results, err := conn.PgConn().Exec(ctx, "begin isolation level repeatable read, read only; set local lock_timeout = '"+lock+
		"'; select pg_catalog.pg_current_snapshot()::text").ReadAll()
	if err != nil {
		return "", err
	}
	last := results[len(results)-1]
	if len(last.Rows) != 1 || len(last.Rows[0]) != 1 {
		return "", errors.New("the server says nothing of its snapshot")
	}
	return string(last.Rows[0][0]), nil
}

// hides returns one of the committed transactions that a snapshot does not see as over; nil when
// there is none.
func hides(snapshot string, xids []wal.XID) (*wal.XID, error) {
	for i := range xids {
		if visible, err := sees(snapshot, xids[i]); err != nil || !visible {
			return &xids[i], err
		}
	}
	return nil, nil
}

// sees reports whether a snapshot, as its type prints it (xmin:xmax:xip,...), sees a committed
// transaction as over. Its numbers have 64 bits, those of the WAL the lower 32.
func sees(snapshot string, xid wal.XID) (bool, error) {
	f := strings.Split(snapshot, ":")
	if len(f) != 3 {
		return false, fmt.Errorf("snapshot %q has another form", snapshot)
	}
	xmax, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		return false, fmt.Errorf("snapshot %q has another form", snapshot)
	}
	if int32(uint32(xid)-uint32(xmax)) >= 0 {
		return false, nil
	}
	for _, one := range strings.Split(f[2], ",") {
		if one == "" {
			continue
		}
		running, err := strconv.ParseUint(one, 10, 64)
		if err != nil {
			return false, fmt.Errorf("snapshot %q has another form", snapshot)
		}
		if uint32(running) == uint32(xid) {
			return false, nil
		}
	}
	return true, nil
}
