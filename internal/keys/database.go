package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/adapter/rowkey"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/internal/node"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Database lists the keys of a region from its database. It belongs to one goroutine.
type Database struct {
	Cluster string
	region  string
	ctx     context.Context // of every List, which has none of its own
	conn    *pgx.Conn
	tables  []wal.RelationName
	plans   map[wal.RelationName]*table
	// Left are published tables that cannot be listed, and why.
	Left map[wal.RelationName]string
}

// table is how one table is read.
type table struct {
	rel   *wal.Relation
	key   *rowkey.Key
	shape statement.Shape
	only  string // the publication's condition on rows; "" for all
}

func byName(a, b wal.RelationName) int {
	return strings.Compare(a.Schema+"\x00"+a.Name, b.Schema+"\x00"+b.Name)
}

// Open looks at the published tables of a region's database; conn stays the caller's. ctx ends
// all listing. The region and cluster are what pgwaltz.node says.
func Open(ctx context.Context, conn *pgx.Conn, publication string) (*Database, error) {
	d := &Database{ctx: ctx, conn: conn, plans: map[wal.RelationName]*table{}, Left: map[wal.RelationName]string{}}
	me, err := node.Load(ctx, conn)
	if err != nil {
		return nil, err
	}
	if me.Region == "" {
		return nil, errors.New("read pgwaltz.node: the table is empty")
	}
	d.region, d.Cluster = me.Region, me.Cluster
	rows, err := conn.Query(ctx, `select schemaname, tablename, coalesce(pg_catalog.to_jsonb(p) ->> 'rowfilter', '') from pg_catalog.pg_publication_tables p where pubname = $1`, publication)
	if err != nil {
		return nil, fmt.Errorf("read publication %q: %w", publication, err)
	}
	type published struct {
		name wal.RelationName
		only string
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (p published, err error) {
		err = r.Scan(&p.name.Schema, &p.name.Name, &p.only)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("read publication %q: %w", publication, err)
	}
	for _, p := range all {
		t, why, err := d.load(ctx, p.name)
		switch {
		case err != nil:
			return nil, err
		case why != "":
			d.Left[p.name] = why
		default:
			t.only = p.only
			d.plans[p.name], d.tables = t, append(d.tables, p.name)
		}
	}
	slices.SortFunc(d.tables, byName)
	return d, nil
}

// load describes a table, or says why it cannot be listed.
func (d *Database) load(ctx context.Context, name wal.RelationName) (t *table, why string, err error) {
	key, err := rowkey.Load(ctx, d.conn, name)
	if err != nil {
		return nil, "", err
	}
	if len(key.Columns) == 0 {
		return nil, "it has no key", nil
	}
	if column, why := key.Unknown(); column != "" {
		return nil, "key column " + column + ": " + why, nil
	}
	in, err := pg.LoadTable(ctx, d.conn, name.Schema, name.Name)
	if errors.Is(err, pg.ErrNoTable) {
		return nil, "it is gone", nil
	}
	if err != nil {
		return nil, "", err
	}
	t = &table{key: key, rel: &wal.Relation{Schema: name.Schema, Name: name.Name, Identity: wal.IdentityFull}}
	for i := range key.Columns {
		c := &key.Columns[i]
		t.rel.Columns = append(t.rel.Columns, wal.Column{Name: c.Name, OID: c.OID, TypeMod: -1, Key: true, Form: c.Form})
		t.rel.PrimaryKey = append(t.rel.PrimaryKey, i)
	}
	t.shape = statement.Shape{Table: in.SQL(), Only: !key.Partitioned, Key: key.Params()}
	return t, "", nil
}

// Region implements Source.
func (d *Database) Region() string { return d.region }

// Tables implements Source.
func (d *Database) Tables() []wal.RelationName { return d.tables }

// fetchRows is how many rows are read at once.
const fetchRows = 2000

// List implements Source. Rows and side tables are of one snapshot.
func (d *Database) List(name wal.RelationName, f func(Entry) error) error {
	t := d.plans[name]
	if t == nil {
		return nil
	}
	s := newSorter()
	defer s.close()
	err := pgx.BeginTxFunc(d.ctx, d.conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if err := d.rows(tx, t, s); err != nil {
			return err
		}
		return d.beside(tx, name, s)
	})
	if err != nil {
		return fmt.Errorf("list keys of %s: %w", name, err)
	}
	return s.each(f)
}

// rows lists the keys of the rows.
func (d *Database) rows(tx pgx.Tx, t *table, s *sorter) error {
	if _, err := tx.Exec(d.ctx, "declare pgwaltz_keys no scroll cursor for "+statement.Keys(t.shape, t.only)); err != nil {
		return err
	}
	fetch := "fetch " + strconv.Itoa(fetchRows) + " from pgwaltz_keys"
	for {
		res := d.conn.PgConn().ExecParams(d.ctx, fetch, nil, nil, nil, nil)
		var changes []*wal.Change
		for res.NextRow() {
			row := make(wal.Tuple, len(t.rel.Columns))
			for i, v := range res.Values() {
				row[i] = wal.Value{Kind: wal.Text, Bytes: append([]byte{}, v...)}
			}
			changes = append(changes, &wal.Change{Op: wal.Insert, Relation: t.rel, New: row})
		}
		if _, err := res.Close(); err != nil {
			return err
		}
		if t.rel.Asks() {
			if err := rowkey.Fill(d.ctx, tx, t.key, t.rel, changes); err != nil {
				return err
			}
		}
		for _, ch := range changes {
			e := Entry{Key: string(ch.AppendKey(nil)), State: Row}
			for _, v := range ch.New {
				e.Values = append(e.Values, string(v.Bytes))
			}
			if err := s.add(e); err != nil {
				return err
			}
		}
		if len(changes) < fetchRows {
			_, err := tx.Exec(d.ctx, "close pgwaltz_keys")
			return err
		}
	}
}

// beside lists tombstones and parked changes.
func (d *Database) beside(tx pgx.Tx, name wal.RelationName, s *sorter) error {
	ledger, err := tombstone.LedgerOf(d.ctx, tx, name)
	if err != nil {
		return err
	}
	for after := ""; ; {
		found, err := tombstone.Page(d.ctx, tx, ledger, after, fetchRows)
		if err != nil {
			return err
		}
		for _, e := range found {
			if err := s.add(Entry{Key: e.Key, State: Dead, Note: conflict.StampText(e.Stamp)}); err != nil {
				return err
			}
			after = e.Key
		}
		if len(found) < fetchRows {
			break
		}
	}
	return parked.EachKey(d.ctx, tx, name, func(key string) error { return s.add(Entry{Key: key, State: Parked}) })
}

// there tells which of the keys still have a row.
func (d *Database) there(name wal.RelationName, keys []Entry) (map[int]bool, error) {
	t := d.plans[name]
	found := map[int]bool{}
	if t == nil || len(keys) == 0 {
		return found, nil
	}
	args := make([]any, len(t.rel.Columns))
	for n := range args {
		texts := make([]string, len(keys))
		for i, k := range keys {
			if n >= len(k.Values) {
				return nil, fmt.Errorf("look for rows of %s: the key is another one in the other region", name)
			}
			texts[i] = k.Values[n]
		}
		args[n] = texts
	}
	rows, err := d.conn.Query(d.ctx, statement.Read(t.shape, nil), args...)
	if err != nil {
		return nil, fmt.Errorf("look for rows of %s: %w", name, err)
	}
	var at int
	if _, err := pgx.ForEachRow(rows, []any{&at}, func() error { found[at-1] = true; return nil }); err != nil {
		return nil, fmt.Errorf("look for rows of %s: %w", name, err)
	}
	return found, nil
}

// DeleteSQL is the statement that deletes the row of an entry of this region, for an operator:
// run in an ordinary session, it is replicated like any other delete.
func (d *Database) DeleteSQL(name wal.RelationName, e Entry) (string, error) {
	t := d.plans[name]
	if t == nil || len(e.Values) != len(t.rel.Columns) {
		return "", fmt.Errorf("make a statement for %s: the key is another one in the other region", name)
	}
	literals := make([]string, len(e.Values))
	for i, v := range e.Values {
		literals[i] = pg.Literal(v)
	}
	return statement.DeleteKey(t.shape, literals), nil
}
