package preflight

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

// sequence is what numbers a column.
type sequence struct {
	name string // quoted, with its schema
	step int64
}

// place is a column of a table.
type place struct {
	table  uint32
	column int16
}

// sequencesSQL finds the sequences of identity columns, and those that a default takes its next
// value of, whoever owns them. It asks the catalog alone: names of schemas that the role may not
// use would be refused.
const sequencesSQL = `select a.attrelid::int8, a.attnum, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), s.seqincrement
from pg_catalog.pg_attribute a
left join pg_catalog.pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum and a.attgenerated = ''
join pg_catalog.pg_depend d on
     d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and d.objid = f.oid and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  or d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype = 'i' and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
     and d.refobjid = a.attrelid and d.refobjsubid = a.attnum
join pg_catalog.pg_sequence s on s.seqrelid = case when d.objid = f.oid and d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass then d.refobjid else d.objid end
join pg_catalog.pg_class c on c.oid = s.seqrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where a.attrelid = any($1::int8[]::oid[]) and a.attnum > 0`

// loadSequences reads which columns of the selected tables are numbered by which sequence.
func loadSequences(ctx context.Context, f *facts) (map[place]sequence, error) {
	var tables []int64
	for _, t := range f.sel.Tables {
		tables = append(tables, int64(t.OID))
	}
	rows, err := f.conn.Query(ctx, sequencesSQL, tables)
	if err != nil {
		return nil, fmt.Errorf("read sequences: %w", err)
	}
	out := map[place]sequence{}
	var table int64
	var column int16
	var s sequence
	if _, err := pgx.ForEachRow(rows, []any{&table, &column, &s.name, &s.step}, func() error {
		out[place{uint32(table), column}] = s
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read sequences: %w", err)
	}
	return out, nil
}

// lateSequence is a default that looks its sequence up by name each time, nextval('name'::text): the
// catalog does not know of which.
var lateSequence = regexp.MustCompile(`nextval\(\('([^']+)'::text\)`)

// namedSequence finds such a sequence, first in the table's own schema; without a name where it cannot.
func namedSequence(ctx context.Context, q pg.Querier, schema, name string) (s sequence, err error) {
	err = q.QueryRow(ctx, `select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), s.seqincrement
from pg_catalog.pg_sequence s join pg_catalog.pg_class c on c.oid = s.seqrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where pg_catalog.parse_ident($2) in (array[c.relname::text], array[n.nspname::text, c.relname::text])
order by n.nspname = $1 desc, 1 limit 1`, schema, name).Scan(&s.name, &s.step)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return s, fmt.Errorf("read sequence %q: %w", name, err)
	}
	return s, nil
}

// checkSequences looks for keys that both regions would draw from sequences of their own.
func checkSequences(ctx context.Context, f *facts, fs *Findings) error {
	regions := int64(len(f.cfg.Peers) + 1)
	if f.cfg.Direction != config.DirectionBoth || regions < 2 {
		return nil
	}
	sequences, err := loadSequences(ctx, f)
	if err != nil {
		return err
	}
	for _, t := range f.sel.Tables {
		for _, name := range t.PrimaryKey {
			c := t.Column(name)
			if c == nil {
				continue
			}
			s, ok := sequences[place{t.OID, c.Num}]
			if m := lateSequence.FindStringSubmatch(c.Default); !ok && m != nil {
				if s, err = namedSequence(ctx, f.conn, t.Schema, m[1]); err != nil {
					return err
				}
				ok = true
			}
			if ok {
				s.check(t, c, regions, fs)
			}
		}
	}
	return nil
}

// check says that a key is numbered in every region alike, unless the sequence leaves room for the others.
func (s sequence) check(t *pg.Table, c *pg.Column, regions int64, fs *Findings) {
	if s.step >= regions || s.step <= -regions {
		return
	}
	remedy := "use keys that are unique everywhere (uuid), or number in steps"
	if s.name != "" {
		remedy = fmt.Sprintf("use keys that are unique everywhere (uuid), or alter sequence %s increment by %d, each region from a start of its own", s.name, regions)
	}
	fs.addTable(t.Ref(), Warning, "shared_sequence", remedy,
		"a key is numbered in each region by itself: both will give the same numbers to different rows",
		"key %s of %s is numbered in each region by itself: both will give the same numbers to different rows", c.Name, t.Ref())
}
