package preflight

import (
	"strings"

	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/counterpart"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/internal/lead"
	"github.com/pgwaltz/pgwaltz/internal/node"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/source/subscribe/quarantine"
)

// SchemaVersion is the version of the tables in schema pgwaltz that this program works with.
const SchemaVersion = 1

// object is one object of schema pgwaltz.
type object struct {
	name string // of the table
	sql  string
	why  string
	// rights are what the sidecar's role needs on the table, where it does not own it.
	rights string
}

// Rights on our tables. The audit log and the name of the database are not for the sidecar to
// change; what is too old goes from the log through a function.
const (
	mayRead   = "select"
	mayInsert = "select, insert"
	mayUpdate = "select, insert, update"
	mayWrite  = "select, insert, update, delete"
)

// objects lists the tables of schema pgwaltz, re-runnable one by one. A column that comes later may be null or has a default, on a line
// of its own: setup adds it to a table that is there.
func objects() []object {
	return []object{
		{"node", node.Schema, "who this database is", mayRead},
		{"peer", node.PeerSchema, "which database each peer has", mayUpdate},
		{"home", node.HomeSchema, "where these tables are: a dump that is restored elsewhere is known by it", mayUpdate},
		{"checkpoint", pgstore.Schema, "how far each peer's changes are applied", mayUpdate},
		{"tombstone", tombstone.Schema, "which rows were deleted, and when, and which live again", mayWrite},
		{"ledger", tombstone.LedgerSchema, "under which names is kept what is known of the tables' keys", mayWrite},
		{"past", tombstone.PastSchema, "what tombstones said before, for as long as changes may be decoded again", mayWrite},
		{"tracked", tombstone.TrackedSchema, "since when the server keeps the commit times of transactions", mayWrite},
		{"clock", tombstone.ClockSchema, "the highest commit time in front of a position of the WAL", mayWrite},
		{"horizon", tombstone.HorizonSchema, "up to which transaction the changes of this region are noted", mayUpdate},
		{"conflict", audit.Schema, "the audit log of conflicts", mayInsert},
		{"parked", parked.Schema, "changes that could not be applied yet", mayWrite},
		{"quarantine", quarantine.Schema, "messages that were refused", mayWrite},
		{"left_out", quarantine.LeftOutSchema, "of which tables changes were left out, because they are not selected", mayWrite},
		{"copy", tablecopy.Schema, "progress of the initial copy and of resyncs", mayUpdate},
		{"unread", tablecopy.UnreadSchema, "how far tables were looked through for rows that were written in a gap", mayWrite},
		{"absence", tablecopy.AbsenceSchema, "of which tables changes of this region are left out, or were until they are copied", mayWrite},
		{"partition", tablecopy.PartitionSchema, "which partitions the published tables have", mayWrite},
		{"name", names.Schema, "which names the tables have and had, and which are published", mayWrite},
		{"naming", names.ColumnSchema, "what the columns of the tables were called", mayWrite},
		{"counterpart", counterpart.Schema, "which columns of the peers stand for which here", mayWrite},
		{"stream", streamstore.Schema, "what this region has published into", mayUpdate},
		{"lead", lead.Schema, "which sidecar is at work", mayUpdate},
	}
}

// column is one column of such a table, and what adds it to a table that an earlier program has made.
type column struct {
	name string
	sql  string
}

// columns lists the columns that the statement of a table names: one in each line.
func (o object) columns() []column {
	_, body, ok := strings.Cut(o.sql, " (\n")
	if !ok {
		return nil
	}
	var out []column
	for line := range strings.Lines(body) {
		line, _, _ = strings.Cut(line, "--")
		line = strings.TrimSuffix(strings.TrimSpace(line), ",")
		name, _, ok := strings.Cut(line, " ")
		if word := strings.ToLower(name); !ok || word == "primary" || word == "unique" || strings.HasPrefix(word, ")") {
			continue
		}
		out = append(out, column{name, "alter table pgwaltz." + o.name + " add column if not exists " + strings.Join(strings.Fields(line), " ")})
	}
	return out
}

// lacks lists the columns of a table that is there and was made by an earlier program.
func (s *schemaState) lacks(o object) []column {
	var out []column
	for _, c := range o.columns() {
		if s.objects[o.name] && !s.objects[o.name+"."+c.name] {
			out = append(out, c)
		}
	}
	return out
}

// indexes lists the indexes beside the keys, by name.
func indexes() []object {
	list := []object{
		{"tombstone_deleted_at", tombstone.IndexSQL, "garbage collection of tombstones", ""},
		{"conflict_detected_at", audit.IndexSQL, "listing and retention of conflicts", ""},
		{"conflict_orphans", audit.OrphansSQL, "counting rows that a deleted one left behind", ""},
	}
	for _, i := range parked.Indexes() {
		list = append(list, object{i[0], i[1], "finding parked changes", ""})
	}
	return list
}

// versionComment marks the schema with its version, for later programs.
const versionComment = "pgwaltz schema version 1"

// SchemaSQL returns the statements that make schema pgwaltz, in order and re-runnable, for
// tests of other rooms. Setup runs the same ones.
func SchemaSQL() []string {
	out := []string{"create schema if not exists pgwaltz"}
	for _, o := range objects() {
		out = append(out, o.sql)
	}
	for _, o := range indexes() {
		out = append(out, o.sql)
	}
	out = append(out, audit.ForgetSQL(0))
	return append(out, "comment on schema pgwaltz is '"+versionComment+"'")
}
