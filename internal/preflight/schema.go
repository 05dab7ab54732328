package preflight

import (
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/source/subscribe/quarantine"
)

// SchemaVersion is the version of the tables in schema pgwaltz that this program works with.
const SchemaVersion = 1

// object is one object of schema pgwaltz.
type object struct {
	name string // of the table
	sql  string
	why  string
}

// objects lists the tables of schema pgwaltz, re-runnable one by one.
func objects() []object {
	return []object{
		{"node", `create table if not exists pgwaltz.node (
  region     text primary key,
  cluster    text not null,
  token      uuid not null,
  created_at timestamptz not null default now()
)`, "who this database is"},
		{"checkpoint", pgstore.Schema, "how far each peer's changes are applied"},
		{"tombstone", tombstone.Schema, "which rows were deleted, and when, and which live again"},
		{"past", tombstone.PastSchema, "what tombstones said before, for as long as changes may be decoded again"},
		{"conflict", `create table if not exists pgwaltz.conflict (
  id           bigint generated always as identity primary key,
  event_id     uuid not null unique,
  detected_at  timestamptz not null default now(),
  region       text,
  schema_name  text,
  table_name   text,
  key          jsonb,
  type         text,
  verdict      text,
  reason       text,
  winner       text,
  loser        text,
  local_stamp  text,
  remote_stamp text,
  base_stamp   text,
  local_row    jsonb,
  remote_row   jsonb,
  origin       text,
  origin_xid   bigint,
  commit_lsn   pg_lsn,
  commit_time  timestamptz,
  local_xid    bigint,
  local_lsn    pg_lsn
)`, "the audit log of conflicts"},
		{"parked", parked.Schema, "changes that could not be applied yet"},
		{"quarantine", quarantine.Schema, "messages that were refused"},
		{"copy", tablecopy.Schema, "progress of the initial copy and of resyncs"},
		{"stream", streamstore.Schema, "what this region has published into"},
		{"request", `create table if not exists pgwaltz.request (
  id           bigint generated always as identity primary key,
  verb         text not null,
  args         jsonb,
  requested_at timestamptz not null default now(),
  done_at      timestamptz,
  result       text
)`, "requests of operators to the sidecar"},
	}
}

// indexes lists the indexes beside the keys, by name.
func indexes() []object {
	list := []object{
		{"tombstone_deleted_at", `create index if not exists tombstone_deleted_at on pgwaltz.tombstone (deleted_at)`, "garbage collection of tombstones"},
		{"conflict_detected_at", `create index if not exists conflict_detected_at on pgwaltz.conflict (detected_at)`, "listing and retention of conflicts"},
		{"request_open", `create index if not exists request_open on pgwaltz.request (id) where done_at is null`, "finding open requests"},
	}
	for _, i := range parked.Indexes() {
		list = append(list, object{i[0], i[1], "finding parked changes"})
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
	return append(out, "comment on schema pgwaltz is '"+versionComment+"'")
}
