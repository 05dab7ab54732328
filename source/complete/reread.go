package complete

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// patience bounds the wait for a transaction that is in the log already to become visible.
const patience = time.Minute

// How long a lock on the table is waited for: LOCK TABLE or VACUUM FULL may hold it for minutes,
// and all other tables wait behind this one. Without the row the change goes out as it is; a peer
// that cannot do without the missing values parks it.
const (
	lockPatience = "3s"
	lockAgain    = "20ms" // while the table is known to be locked
)

// reread reads the rows of those changes back that the log holds in part only.
func reread(ctx context.Context, conn *pgx.Conn, t *table, tx *wal.Transaction, rel *wal.Relation, changes []*wal.Change) error {
	var open []*wal.Change
	for _, ch := range changes {
		if partial(ch) {
			open = append(open, ch)
		}
	}
	if len(open) == 0 {
		return nil
	}
	if len(t.key.Columns) != len(rel.PrimaryKey) {
		return fmt.Errorf("read rows back: the key here is another one")
	}
	if err := beginBehind(ctx, conn, tx.XID); err != nil {
		return fmt.Errorf("read rows back: %w", err)
	}
	defer conn.Exec(context.WithoutCancel(ctx), "rollback")
	wait := lockPatience
	if t.locked {
		wait = lockAgain
	}
	if _, err := conn.Exec(ctx, "set local lock_timeout = '"+wait+"'"); err != nil {
		return fmt.Errorf("read rows back: %w", err)
	}
	s := statement.Shape{Table: statement.Table(rel.Schema, rel.Name), Only: !t.key.Partitioned, Key: t.key.Params()}
	names := make([]string, len(rel.Columns))
	for i := range names {
		names[i] = rel.Columns[i].Name
	}
	args := make([]any, len(rel.PrimaryKey))
	for n, k := range rel.PrimaryKey {
		texts := make([]*string, len(open))
		for i, ch := range open {
			if text, ok := wal.AppendText(nil, rel.Columns[k].OID, ch.New[k]); ok {
				v := string(text)
				texts[i] = &v
			}
		}
		args[n] = texts
	}
	rows := make([]wal.Tuple, len(open))
	found, err := conn.Query(ctx, statement.Read(s, names), append([]any{pgx.QueryResultFormats{pgx.TextFormatCode}}, args...)...)
	if t.locked = state(err) == "55P03"; t.locked || another(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read rows back: %w", err)
	}
	defer found.Close()
	for found.Next() {
		v := found.RawValues()
		n, err := strconv.Atoi(string(v[0]))
		if err != nil || n < 1 || n > len(rows) {
			return fmt.Errorf("read rows back: place %q", v[0])
		}
		rows[n-1] = tuple(v[1:])
	}
	err = found.Err()
	if t.locked = state(err) == "55P03"; t.locked || another(err) {
		return nil // the change goes out as it is
	}
	if err != nil {
		return fmt.Errorf("read rows back: %w", err)
	}
	for i, ch := range open {
		settle(ch, rows[i])
	}
	return nil
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

// settle gives a change the row that was read back. Without one the change is left out
// (leaveOut), but the delete in a change of the key stays.
func settle(ch *wal.Change, row wal.Tuple) {
	if row != nil {
		ch.New = row
		return
	}
	if ch.Op == wal.Update && ch.Old != nil && !bytes.Equal(ch.AppendOldKey(nil), ch.AppendKey(nil)) {
		ch.Op = wal.Delete
		if ch.Keys != nil {
			ch.Keys = &wal.Keys{Old: ch.Keys.Old}
		}
	}
	ch.New = nil
}

func tuple(v [][]byte) wal.Tuple {
	row := make(wal.Tuple, len(v))
	for i := range v {
		row[i].Kind = wal.Null
		if v[i] != nil {
			row[i] = wal.Value{Kind: wal.Text, Bytes: append(make([]byte, 0, len(v[i])), v[i]...)}
		}
	}
	return row
}

// beginBehind opens a read-only transaction whose snapshot sees the transaction xid: a commit
// is in the log, and may be decoded, some time before it is visible.
func beginBehind(ctx context.Context, conn *pgx.Conn, xid wal.XID) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if _, err := conn.Exec(ctx, "begin isolation level repeatable read, read only"); err != nil {
			return err
		}
		var snapshot string
		if err := conn.QueryRow(ctx, "select pg_catalog.pg_current_snapshot()::text").Scan(&snapshot); err != nil {
			return err
		}
		visible, err := sees(snapshot, xid)
		if err != nil || visible {
			return err
		}
		if _, err := conn.Exec(ctx, "rollback"); err != nil {
			return err
		}
		wait := time.NewTimer(5 * time.Millisecond)
		select {
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("transaction %d is in the log and not visible: %w", xid, context.Cause(ctx))
		case <-wait.C:
		}
	}
}

// sees reports whether a snapshot, as its type prints it (xmin:xmax:xip,...), sees a committed
// transaction as over. Its numbers have 64 bits, those of the log the lower 32.
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
