package copy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/adapter/rowkey"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// errNoKey says why a table cannot be copied.
var errNoKey = errors.New("it has no key to read it by; copy it by other means")

// plan is how one table is read.
type plan struct {
	rel   *wal.Relation
	key   *rowkey.Key
	shape statement.Shape
	cols  conflict.Columns
	sql   string // first page
	// timed: behind the columns there is the time when this region wrote the row.
	timed bool
	next  string // further pages; parameters: the key, then the limit
	part  bool   // a partition alone is read: its rows go out as its table's
	// nums are what the columns of rel are in the table that is read.
	nums map[string]int16
	oid  uint32 // the table that is read
	// ledger is the name under which is kept what is known of its keys.
	ledger wal.RelationName
}

// Named is as in apply.Config.
type Named func(ctx context.Context, table uint32, name wal.RelationName) error

// settle finds the ledger of the table. It is called before anything is read beside its rows.
func (p *plan) settle(ctx context.Context, index *tombstone.Index, named Named) error {
	if named != nil && len(p.rel.Columns) > 0 {
		if err := named(ctx, wal.TableOf(p.rel.Columns[0].ID), p.rel.Ref()); err != nil {
			return err
		}
	}
	p.ledger = index.Own(p.rel)
	return nil
}

// newPlan describes a published table, or a partition of one; nil when there is none of that name.
func newPlan(ctx context.Context, conn *pgx.Conn, name wal.RelationName, stampsOf func(wal.RelationName) StampColumns, tracked tombstone.Tracked) (*plan, error) {
	t, err := pg.LoadTable(ctx, conn, name.Schema, name.Name)
	if errors.Is(err, pg.ErrNoTable) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	from, part, oid, nums := t.SQL(), t.Partition, t.OID, map[string]int16{}
	for _, c := range t.Columns {
		nums[c.Name] = c.Num
	}
	if part {
		if name, err = rootOf(ctx, conn, t); err != nil {
			return nil, err
		}
		if t, err = pg.LoadTable(ctx, conn, name.Schema, name.Name); err != nil {
			return nil, err
		}
	}
	stamps := stampsOf(name)
	key, err := rowkey.Load(ctx, conn, name)
	if err != nil {
		return nil, err
	}
	if len(key.Columns) == 0 {
		return nil, errNoKey
	}
	if column, why := key.Unknown(); column != "" {
		return nil, fmt.Errorf("key column %s: %s: %w", column, why, errNoKey)
	}
	// What cannot be computed for the WAL is not copied either: what changes meanwhile is not sent.
	if exprs := key.Generated(); exprs != nil {
		if _, err := conn.Exec(ctx, statement.Compute(t.SQL(), exprs), []string{}); err != nil {
			return nil, fmt.Errorf("compute its key: %w", err)
		}
	}
	p := &plan{rel: relationOf(t, key), key: key, part: part, nums: nums, oid: oid}
	p.ledger = p.rel.Ref()
	p.cols = conflict.ColumnsOf(p.rel, stamps.Version, stamps.UpdatedAt)
	names := make([]string, len(p.rel.Columns))
	for i := range p.rel.Columns {
		names[i] = p.rel.Columns[i].Name
	}
	p.shape = statement.Shape{Table: from, Only: part || !key.Partitioned, Key: key.Params()}
	if p.cols.Stampless() {
		p.shape.Time = tracked.SQL()
	}
	p.timed = p.shape.Time != ""
	p.sql, p.next = statement.Page(p.shape, names, false), statement.Page(p.shape, names, true)
	return p, nil
}

// relationOf describes a table as the stream does. Of the generated columns it has those of the
// key.
func relationOf(t *pg.Table, key *rowkey.Key) *wal.Relation {
	rel := &wal.Relation{Schema: t.Schema, Name: t.Name, Identity: wal.IdentityFull}
	if t.Identity == wal.IdentityIndex {
		rel.Identity = wal.IdentityIndex
	}
	inKey := func(name string) bool {
		return slices.ContainsFunc(key.Columns, func(c rowkey.Column) bool { return c.Name == name })
	}
	for _, c := range t.Columns {
		if in := inKey(c.Name); in || c.Generated == 0 {
			rel.Columns = append(rel.Columns, wal.Column{ID: wal.ColumnID(t.OID, c.Num), Name: c.Name, OID: c.TypeOID, TypeMod: c.TypMod, Key: in || rel.Identity == wal.IdentityFull})
		}
	}
	key.Describe(rel)
	return rel
}
