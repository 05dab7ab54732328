package main

import (
	"fmt"
	"regexp"
	"strings"
)

// table is one kind of table that the writers write. Every one has a key column k and the
// columns wid (the id of the write that made the row) and v.
type table struct {
	name    string
	why     string
	full    bool   // replica identity FULL: the oracle is strict
	bump    bool   // a trigger raises version and updated_at
	falls   bool   // writers give version and updated_at themselves, sometimes falling
	big     bool   // has a column big, stored out of line
	email   bool   // has a unique column email
	parent  string // child tables name their parent
	keyless bool
	numeric bool // the key is numeric and written in several spellings
	bulk    bool // written by giant transactions only
	weight  int  // how often it is drawn
	index   int  // in the list of the run
	keys    int  // how many keys are written
	child   *table
}

const stampColumns = "version bigint not null default 0, updated_at timestamptz not null default now()"

// tableKinds lists every kind, in a fixed order.
func tableKinds() []*table {
	return []*table{
		{name: "kv", why: "version and updated_at raised by a trigger, identity FULL", full: true, bump: true, weight: 6},
		{name: "kv_default", why: "the same, identity DEFAULT", bump: true, weight: 4},
		{name: "kv_time", why: "the same, FULL, compared by time first", full: true, bump: true, weight: 3},
		{name: "falls", why: "stamps given by the application, sometimes falling, FULL", full: true, falls: true, weight: 4},
		{name: "falls_default", why: "the same, identity DEFAULT", falls: true, weight: 3},
		{name: "plain", why: "no stamp columns, FULL", full: true, weight: 5},
		{name: "plain_default", why: "no stamp columns, identity DEFAULT", weight: 3},
		{name: "toast", why: "large values stored out of line, FULL", full: true, bump: true, big: true, weight: 2},
		{name: "toast_default", why: "the same, identity DEFAULT", bump: true, big: true, weight: 2},
		{name: "uniq", why: "a secondary unique key that clashes for a while, FULL", full: true, bump: true, email: true, weight: 2},
		{name: "num", why: "a numeric key in several spellings, FULL", full: true, bump: true, numeric: true, weight: 2},
		{name: "parent", why: "parents whose children are deleted with them, FULL", full: true, bump: true, weight: 2},
		{name: "child", why: "their children, FULL", full: true, bump: true, parent: "parent", weight: 3},
		{name: "keyless", why: "no key, FULL; a region changes its own rows only", full: true, keyless: true, weight: 2},
		{name: "bulk", why: "giant transactions of both regions over the same rows, FULL", full: true, bump: true, bulk: true},
	}
}

// chooseTables are the kinds that the expression matches, numbered. A child needs its parent.
func chooseTables(re *regexp.Regexp, keys, giant int) []*table {
	var out []*table
	byName := map[string]*table{}
	for _, t := range tableKinds() {
		if !re.MatchString(t.name) && !(t.name == "parent" && re.MatchString("child")) || t.bulk && giant == 0 {
			continue
		}
		t.index, t.keys = len(out), keys
		if t.bulk {
			t.keys = giant
		}
		if p := byName[t.parent]; p != nil {
			p.child = t
		}
		byName[t.name] = t
		out = append(out, t)
	}
	return out
}

// create is the statements that make the table.
func (t *table) create() string {
	var cols []string
	switch {
	case t.keyless:
		cols = append(cols, "k int")
	case t.numeric:
		cols = append(cols, "k numeric primary key")
	default:
		cols = append(cols, "k int primary key")
	}
	cols = append(cols, "wid bigint not null", "v text")
	if t.parent != "" {
		cols = append(cols, "pid int references "+t.parent+" on delete cascade")
	}
	if t.big {
		cols = append(cols, "big text")
	}
	if t.email {
		cols = append(cols, "email text unique")
	}
	if t.bump || t.falls {
		cols = append(cols, stampColumns)
	}
	sql := fmt.Sprintf("create table %s(%s);\n", t.name, strings.Join(cols, ", "))
	if t.big {
		sql += fmt.Sprintf("alter table %s alter big set storage external;\n", t.name)
	}
	if t.keyless {
		sql += fmt.Sprintf("alter table %s replica identity full;\n", t.name)
	}
	if t.parent != "" {
		sql += fmt.Sprintf("create trigger note_cascade after delete on %s for each row execute function note_cascade();\n", t.name)
	}
	if t.bump {
		sql += fmt.Sprintf("create trigger bump before update on %s for each row execute function bump();\n", t.name)
	}
	return sql
}

// schemaSQL makes all tables. The clock of a region's trigger can be set off by the
// setting chaos.skew; note_cascade lists in chaos.cascaded the children that a transaction
// deletes, as key:wid.
func schemaSQL(tables []*table) string {
	sql := `create function bump() returns trigger language plpgsql as $$begin
  new.version := old.version + 1; new.updated_at := clock_timestamp(); return new;
end$$;
create function note_cascade() returns trigger language plpgsql as $$begin
  perform set_config('chaos.cascaded', concat_ws(' ', current_setting('chaos.cascaded', true), old.k || ':' || old.wid), true);
  return old;
end$$;
`
	for _, t := range tables {
		sql += t.create()
	}
	return sql
}

// tableRules are the settings of both sidecars that the tables need.
func tableRules() string {
	return `[{match: "public.*_default", replica_identity: keep}, {match: "public.kv_time", order: time}]`
}
