package copy

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// errNoKey says why a table cannot be copied.
var errNoKey = errors.New("it has no primary key to read it by; copy it by other means")

// plan is how one table is read.
type plan struct {
	rel   *wal.Relation
	order []int // the primary key's columns
	cols  conflict.Columns
	sql   string // first page
	next  string // further pages; parameters: the key, then the limit
}

// newPlan describes a published table; nil when there is none of that name.
func newPlan(ctx context.Context, conn *pgx.Conn, name wal.RelationName, stamps StampColumns) (*plan, error) {
	t, err := pg.LoadTable(ctx, conn, name.Schema, name.Name)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, nil
	}
	if len(t.PrimaryKey) == 0 {
		return nil, errNoKey
	}
	p := &plan{rel: relationOf(t)}
	var names []string
	for i := range p.rel.Columns {
		names = append(names, pg.Quote(p.rel.Columns[i].Name))
	}
	var keys, params []string
	for i, k := range t.PrimaryKey {
		p.order = append(p.order, p.rel.Column(k))
		keys = append(keys, pg.Quote(k))
		for _, c := range t.Columns {
			if c.Name == k {
				params = append(params, "$"+strconv.Itoa(i+1)+"::text::"+c.TypeName)
			}
		}
	}
	if p.rel.Identity == wal.IdentityFull {
		p.rel.PrimaryKey = p.order
	}
	p.cols = conflict.ColumnsOf(p.rel, stamps.Version, stamps.UpdatedAt)
	order := " order by " + strings.Join(keys, ", ") + " limit "
	base := "select " + strings.Join(names, ", ") + " from " + pg.QuoteTable(name.Schema, name.Name)
	p.sql = base + order + "$1::int"
	p.next = base + " where (" + strings.Join(keys, ", ") + ") > (" + strings.Join(params, ", ") + ")" + order + "$" + strconv.Itoa(len(keys)+1) + "::int"
	return p, nil
}

// relationOf describes a table as the stream does: its rows are named by the identity's index
// where there is one, else by the primary key.
func relationOf(t *pg.Table) *wal.Relation {
	rel := &wal.Relation{Schema: t.Schema, Name: t.Name, Identity: wal.IdentityFull}
	byIndex := t.Identity == wal.IdentityIndex && len(t.IdentityIndex) > 0
	if byIndex {
		rel.Identity = wal.IdentityIndex
	}
	for _, c := range t.Columns {
		if c.Generated == 0 {
			rel.Columns = append(rel.Columns, wal.Column{Name: c.Name, OID: c.TypeOID, TypeMod: c.TypMod, Key: !byIndex || slices.Contains(t.IdentityIndex, c.Name)})
		}
	}
	return rel
}
