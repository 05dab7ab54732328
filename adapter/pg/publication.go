package pg

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Publication is a publication as the catalog has it.
type Publication struct {
	Name      string
	Owner     string
	AllTables bool
	Schemas   bool // has FOR TABLES IN SCHEMA entries (15)
	Insert    bool
	Update    bool
	Delete    bool
	Truncate  bool
	ViaRoot   bool
	// Generated: stored generated columns are sent. From 18 on, updates and deletes of a table that
	// has one fail under identity FULL where they are not.
	Generated bool
	Tables    []PublishedTable // in order of schema and name
}

// PublishedTable is a table that a publication sends, as it names it in the stream.
type PublishedTable struct {
	Name       wal.RelationName
	RowFilter  string   // "" for none
	Columns    []string // columns that are sent
	ColumnList bool     // somebody chose the columns
}

// LoadPublication reads a publication; nil when there is none of that name.
func LoadPublication(ctx context.Context, q Querier, name string) (*Publication, error) {
	p := &Publication{Name: name}
	var version int
	err := q.QueryRow(ctx, `select pg_catalog.pg_get_userbyid(p.pubowner)::text, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete,
  p.pubtruncate, p.pubviaroot, coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols', 's') = 's', pg_catalog.current_setting('server_version_num')::int
from pg_catalog.pg_publication p where p.pubname = $1::text`, name).Scan(&p.Owner, &p.AllTables, &p.Insert, &p.Update, &p.Delete,
		&p.Truncate, &p.ViaRoot, &p.Generated, &version)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read publication %q: %w", name, err)
	}
	// Row filters, column lists and schemas came with 15.
	sql := `select t.schemaname::text, t.tablename::text, '', array(select a.attname::text from pg_catalog.pg_attribute a
  where a.attrelid = pg_catalog.to_regclass(pg_catalog.format('%I.%I', t.schemaname, t.tablename)) and a.attnum > 0
    and not a.attisdropped and a.attgenerated = '' order by a.attnum), false
from pg_catalog.pg_publication_tables t where t.pubname = $1::text order by 1, 2`
	if version >= 150000 {
		// Before 18 the view lists generated columns, which are not sent.
		sql = `select t.schemaname::text, t.tablename::text, coalesce(t.rowfilter, ''),
  case when pg_catalog.current_setting('server_version_num')::int >= 180000 then t.attnames::text[] else
    array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attname = any(t.attnames)
      and not a.attisdropped and a.attgenerated = '' order by a.attnum) end,
  exists (select from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid
    where p.pubname = t.pubname and r.prattrs is not null and r.prrelid = c.oid)
from pg_catalog.pg_publication_tables t join pg_catalog.pg_namespace n on n.nspname = t.schemaname
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
where t.pubname = $1::text order by 1, 2`
		if err := q.QueryRow(ctx, `select exists (select from pg_catalog.pg_publication_namespace n
  join pg_catalog.pg_publication p on p.oid = n.pnpubid where p.pubname = $1::text)`, name).Scan(&p.Schemas); err != nil {
			return nil, fmt.Errorf("read schemas of publication %q: %w", name, err)
		}
	}
	rows, err := q.Query(ctx, sql, name)
	if err != nil {
		return nil, fmt.Errorf("read tables of publication %q: %w", name, err)
	}
	defer rows.Close()
	for rows.Next() {
		var t PublishedTable
		if err := rows.Scan(&t.Name.Schema, &t.Name.Name, &t.RowFilter, &t.Columns, &t.ColumnList); err != nil {
			return nil, fmt.Errorf("read tables of publication %q: %w", name, err)
		}
		p.Tables = append(p.Tables, t)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read tables of publication %q: %w", name, err)
	}
	return p, nil
}

// Has reports whether the publication sends the table under this name.
func (p *Publication) Has(name wal.RelationName) bool {
	for i := range p.Tables {
		if p.Tables[i].Name == name {
			return true
		}
	}
	return false
}
