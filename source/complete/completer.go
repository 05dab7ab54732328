package complete

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/rowkey"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Session runs f in a session of its own, one call at a time. f must not keep the connection.
type Session func(ctx context.Context, f func(context.Context, *pgx.Conn) error) error

// Completer completes the changes of one region. It belongs to the goroutine of the outbound
// pipe, but for Describe, which belongs to the decoder's.
type Completer struct {
	session Session
	policy  func(*wal.Relation) (order conflict.Policy, stampless bool)
	tables  map[*wal.Relation]*table
	whole   int // bytes of rows read back whole for the part at hand
	// Ledger is the name under which is kept what is known of the keys of a relation; nil: its own.
	Ledger func(*wal.Relation) wal.RelationName
	// Nameless is told of changes that are left out because the key of their rows cannot be
	// computed: the server refuses the values that the WAL holds. May be nil.
	Nameless func(rel *wal.Relation, op wal.Op)
	// Unable is told that keys of a table cannot be computed because of something other than their values:
	// a right or a function is missing. It reports whether changes that need it are left out now, having
	// seen to it that the table's rows are copied later; otherwise the error stands. May be nil.
	Unable func(ctx context.Context, rel *wal.Relation, cause error) (bool, error)
}

// table is what is known of one relation.
type table struct {
	key      *rowkey.Key
	computed []rowkey.Column // in the order of the columns at the end of the relation
	locked   bool            // the last try to read from it met a lock
}

// New returns a completer that asks in session; policy orders the stamps of a table, and tells
// whether it has no columns for them.
func New(session Session, policy func(*wal.Relation) (order conflict.Policy, stampless bool)) *Completer {
	return &Completer{session: session, policy: policy, tables: map[*wal.Relation]*table{}}
}

// Describe sets what identifies the rows of rel, as the catalog has it now. It is the Key of a
// decoder.Config. An error says that it could not be found out; it is to be tried again.
func (c *Completer) Describe(ctx context.Context, rel *wal.Relation) error {
	return c.session(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		k, err := rowkey.Load(ctx, conn, rel.Ref())
		if err != nil {
			return err
		}
		k.Describe(rel)
		return nil
	})
}

// Complete completes the keys of a transaction, or of a part of one, in place, before it is
// stamped. A change whose key cannot be computed, whenever it is tried, is removed (Nameless). After
// an error it is to be decoded again.
func (c *Completer) Complete(ctx context.Context, tx *wal.Transaction) error {
	bad := map[*wal.Change]bool{}
	left := map[*wal.Relation]bool{} // changes that need what is missing are left out
	var failing *wal.Relation
	needs := func(ch *wal.Change) bool { return ch.Relation.Sent() < len(ch.Relation.Columns) || ch.Relation.Asks() }
	each := func() error {
		return c.each(ctx, []*wal.Transaction{tx}, needs, func(ctx context.Context, conn *pgx.Conn, t *table, rel *wal.Relation, changes []*wal.Change) error {
			failing = rel
			leave := refused
			if left[rel] {
				leave = func(err error) bool { return refused(err) || unable(err) }
				if unable(c.keys(ctx, conn, t, rel, nil)) {
					for _, ch := range changes {
						bad[ch] = true
					}
					return nil
				}
			}
			return alone(changes, bad, leave, func(changes []*wal.Change) error { return c.keys(ctx, conn, t, rel, changes) })
		})
	}
	err := each()
	for unable(err) && c.Unable != nil && !left[failing] {
		out, says := c.Unable(ctx, failing, err)
		if says != nil || !out {
			return errors.Join(err, says)
		}
		left[failing] = true
		err = each()
	}
	if err != nil || len(bad) == 0 {
		return err
	}
	kept := tx.Changes[:0:0]
	for i := range tx.Changes {
		ch := &tx.Changes[i]
		if !bad[ch] {
			kept = append(kept, *ch)
		} else if c.Nameless != nil {
			c.Nameless(ch.Relation, ch.Op)
		}
	}
	tx.Changes = kept
	return nil
}

// alone runs f for some changes, and finds those for which it fails with an error that leave reports.
func alone(changes []*wal.Change, bad map[*wal.Change]bool, leave func(error) bool, f func([]*wal.Change) error) error {
	err := f(changes)
	switch {
	case err == nil:
		return nil
	case !leave(err):
		return err
	case len(changes) == 1:
		bad[changes[0]] = true
		return nil
	}
	half := len(changes) / 2
	if err := alone(changes[:half], bad, leave, f); err != nil {
		return err
	}
	return alone(changes[half:], bad, leave, f)
}

// refused reports whether the server does not take a value, or a function of the application
// raises an error for it, or the value is not there.
func refused(err error) bool {
	if errors.Is(err, errNoKey) {
		return true
	}
	code := state(err)
	return len(code) == 5 && (code[:2] == "22" || code[:2] == "23" || code[:2] == "P0")
}

// unable reports whether the server cannot compute keys of a table, whatever their values are: a right
// or a function is missing, or a function does what it may not.
func unable(err error) bool {
	code := state(err)
	if len(code) != 5 {
		return false
	}
	switch code[:2] {
	case "0A", "2F", "38", "39", "3F", "42", "54", "XX":
		return true
	}
	return false
}

// Values completes the images of transactions, or parts of one, that are stamped: their
// values change, never their stamps. Changes whose row is gone are removed, unless they are above
// the tombstone that stands in its place: these go out as they are. After an error they are to be
// decoded again.
func (c *Completer) Values(ctx context.Context, txs []*wal.Transaction) error {
	c.whole = 0
	gone := map[*wal.Change]bool{}
	err := c.each(ctx, txs, partial, func(ctx context.Context, conn *pgx.Conn, t *table, rel *wal.Relation, changes []*wal.Change) error {
		missing, err := c.reread(ctx, conn, t, txs, rel, changes)
		for _, ch := range missing {
			gone[ch] = true
		}
		return err
	})
	if err != nil || len(gone) == 0 {
		return err
	}
	for _, tx := range txs {
		kept := tx.Changes[:0:0]
		for i := range tx.Changes {
			if !gone[&tx.Changes[i]] {
				kept = append(kept, tx.Changes[i])
			}
		}
		tx.Changes = kept
	}
	return nil
}

// each runs f for the changes that need it, table by table, in a session.
func (c *Completer) each(ctx context.Context, txs []*wal.Transaction, needs func(*wal.Change) bool, f func(context.Context, *pgx.Conn, *table, *wal.Relation, []*wal.Change) error) error {
	var work []*wal.Relation
	changes := map[*wal.Relation][]*wal.Change{}
	for _, tx := range txs {
		for i := range tx.Changes {
			ch := &tx.Changes[i]
			if ch.Op == wal.Truncate || !needs(ch) {
				continue
			}
			if changes[ch.Relation] == nil {
				work = append(work, ch.Relation)
			}
			changes[ch.Relation] = append(changes[ch.Relation], ch)
		}
	}
	if len(work) == 0 {
		return nil
	}
	return c.session(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		for _, rel := range work {
			t, err := c.table(ctx, conn, rel)
			if err == nil {
				err = f(ctx, conn, t, rel, changes[rel])
			}
			if err != nil {
				return fmt.Errorf("complete changes of %s: %w", rel, err)
			}
		}
		return nil
	})
}

// partial reports whether the change lacks a value that the WAL does not hold.
func partial(ch *wal.Change) bool {
	return ch.New != nil && !ch.New.Complete() && ch.Relation.PrimaryKey != nil
}

// keys fills in generated columns and the texts of keys.
func (c *Completer) keys(ctx context.Context, conn *pgx.Conn, t *table, rel *wal.Relation, changes []*wal.Change) error {
	if len(t.computed) > 0 {
		if err := compute(ctx, conn, t, rel, changes); err != nil {
			return err
		}
	}
	if rel.Asks() {
		return rowkey.Fill(ctx, conn, t.key, rel, changes)
	}
	return nil
}

func (c *Completer) table(ctx context.Context, conn *pgx.Conn, rel *wal.Relation) (*table, error) {
	if t := c.tables[rel]; t != nil {
		return t, nil
	}
	k, err := rowkey.Load(ctx, conn, rel.Ref())
	if err != nil {
		return nil, err
	}
	t := &table{key: k}
	for i := rel.Sent(); i < len(rel.Columns); i++ {
		for n := range k.Columns {
			if k.Columns[n].Name == rel.Columns[i].Name {
				t.computed = append(t.computed, k.Columns[n])
			}
		}
	}
	if len(t.computed) < len(rel.Columns)-rel.Sent() {
		return nil, fmt.Errorf("the generated columns of its key have changed")
	}
	if len(c.tables) > 4096 {
		clear(c.tables)
	}
	c.tables[rel] = t
	return t, nil
}
