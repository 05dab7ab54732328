package preflight

import (
	"fmt"
	"slices"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Selection is what the configuration's patterns make of the tables of a database.
type Selection struct {
	// Tables are to be replicated, in order of schema and name. A partitioned table stands
	// for its partitions.
	Tables []*pg.Table
	// LeftOut match a pattern and are not replicated.
	LeftOut []LeftOut
	// Partitions are the leaves of a selected partitioned table, by its name.
	Partitions map[wal.RelationName][]*pg.Table
}

// LeftOut is a table that matches and cannot be replicated.
type LeftOut struct {
	Table  *pg.Table
	Why    string
	Remedy string
}

// Select applies the patterns. tables is what pg.LoadTables returned.
func Select(cfg *config.Config, tables []*pg.Table) Selection {
	s := Selection{Partitions: map[wal.RelationName][]*pg.Table{}}
	roots := map[wal.RelationName]bool{}
	for _, t := range tables {
		if t.Kind == 'p' && !t.Partition && cfg.Selected(t.Schema, t.Name) {
			roots[t.Ref()] = true
		}
	}
	for _, t := range tables {
		switch {
		case t.Extension:
		case t.Partition && roots[t.Root]:
			s.Partitions[t.Root] = append(s.Partitions[t.Root], t)
		case !cfg.Selected(t.Schema, t.Name):
		case t.Unlogged:
			s.LeftOut = append(s.LeftOut, LeftOut{t, "is unlogged, so its changes are not in the WAL", "alter table " + t.SQL() + " set logged"})
		case !t.HasIdentity():
			s.LeftOut = append(s.LeftOut, noIdentity(t))
		default:
			s.Tables = append(s.Tables, t)
		}
	}
	return s
}

// noIdentity explains why a table is not published: PostgreSQL would refuse the
// application's own updates and deletes with 55000 from then on.
func noIdentity(t *pg.Table) LeftOut {
	out := LeftOut{Table: t, Why: "has no primary key", Remedy: "add a primary key, or exclude the table"}
	switch {
	case t.Identity == wal.IdentityFull:
		out.Why, out.Remedy = "has a virtual generated column, which the replica identity FULL cannot hold", "alter table "+t.SQL()+" replica identity default"
	case t.Identity == wal.IdentityNothing:
		out.Why, out.Remedy = "has replica identity NOTHING", "alter table "+t.SQL()+" replica identity default"
		if len(t.PrimaryKey) == 0 {
			out.Why, out.Remedy = "has replica identity NOTHING and no primary key", "add a primary key and alter table "+t.SQL()+" replica identity default"
		}
	case t.Identity == wal.IdentityIndex:
		out.Why, out.Remedy = "has a replica identity index that does not exist any more", "alter table "+t.SQL()+" replica identity default"
	case t.DeferrableKey:
		out.Why, out.Remedy = "has a deferrable primary key, which is no replica identity", "make the key not deferrable, or alter table "+t.SQL()+" replica identity full"
	}
	return out
}

// wantsFull reports whether setup gives the table the identity FULL. With an index of its own as
// identity a table with a primary key would name its rows in another way than the same table in
// a region that has none. A virtual generated column cannot be under FULL: the application's
// updates would fail.
func wantsFull(cfg *config.Config, t *pg.Table) bool {
	return cfg.Mode != config.ModePglogical && !t.HasGenerated('v') && (t.Identity == wal.IdentityDefault || t.Identity == wal.IdentityIndex) && len(t.PrimaryKey) > 0 && cfg.Table(t.Schema, t.Name).ReplicaIdentity == config.IdentityFull
}

// stampColumns lists the table's stamp columns that exist, version first.
func stampColumns(cfg *config.Config, t *pg.Table) []string {
	s := cfg.Table(t.Schema, t.Name)
	var out []string
	for _, name := range []string{s.Version, s.UpdatedAt} {
		if name != "" && t.Column(name) != nil {
			out = append(out, name)
		}
	}
	return out
}

// checkPatterns reports tables that are left out and patterns that match nothing.
func checkPatterns(f *facts, fs *Findings) {
	cfg := f.cfg
	for _, l := range f.sel.LeftOut {
		fs.addTable(l.Table.Ref(), Warning, "table_without_identity", l.Remedy, "left out, because each "+l.Why, "table %s is left out: it %s", l.Table.Ref(), l.Why)
		if l.Table.Unlogged {
			(*fs)[len(*fs)-1].Code = "table_unlogged"
		}
	}
	miss := func(key string, p config.Pattern, severity Severity) {
		if slices.ContainsFunc(f.tables, func(t *pg.Table) bool { return p.Match(t.Schema, t.Name) }) {
			return
		}
		if p.WholeSchemas() && slices.ContainsFunc(f.schemas, p.MatchSchema) {
			severity = Warning // a schema without tables, so far, is no mistake of the pattern
		}
		fs.add(severity, "pattern_matches_nothing", "correct the pattern (case counts), or create the table first", "%s: %q matches no table", key, p)
		f := &(*fs)[len(*fs)-1]
		if f.Source = cfg.Source(key); p.Exact() && severity == Error {
			f.Table = p.String()
		}
	}
	for i, p := range cfg.Tables.Include {
		miss(listKey(cfg, "tables.include", i), p, Error)
	}
	for i, p := range cfg.Tables.Exclude {
		miss(listKey(cfg, "tables.exclude", i), p, Warning)
	}
	for i, r := range cfg.Tables.Rules {
		miss(fmt.Sprintf("tables.rules[%d].match", i), r.Match, Warning)
	}
}

// listKey names the list item, or the list where the item has no place of its own.
func listKey(cfg *config.Config, key string, i int) string {
	if one := fmt.Sprintf("%s[%d]", key, i); cfg.Source(one) != "default" {
		return one
	}
	return key
}
