package audit

import (
	"fmt"
	"time"
)

// Schema creates the table; the schema pgwaltz must exist. It may be run again.
const Schema = `create table if not exists pgwaltz.conflict (
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
)`

// IndexSQL creates the index for listing and retention. It may be run again.
const IndexSQL = `create index if not exists conflict_detected_at on pgwaltz.conflict (detected_at)`

// OrphansSQL creates the index for counting orphans, which are few, at each start. It may be run again.
const OrphansSQL = `create index if not exists conflict_orphans on pgwaltz.conflict (id) where type = 'fk_orphan'`

// Forget is the function through which old rows go: the role of the sidecar may add to the
// log, and neither change nor delete what is in it.
const (
	Forget     = "pgwaltz.forget_conflicts(interval, integer)"
	ForgetName = "forget_conflicts"
)

// ForgetSQL creates the function Forget. It belongs to the role that runs setup and works with
// that role's rights. Rows younger than retention stay, whatever it is asked for; zero keeps
// everything.
func ForgetSQL(retention time.Duration) string {
	return fmt.Sprintf(`create or replace function pgwaltz.forget_conflicts(older_than interval, at_most integer) returns bigint
  language sql security definer set search_path = pg_catalog, pg_temp as $function$%s$function$`, ForgetBody(retention))
}

// ForgetBody is the text of the function.
func ForgetBody(retention time.Duration) string {
	keep := fmt.Sprintf("interval '%d seconds'", int64(retention.Seconds()))
	if retention <= 0 {
		keep = "interval '1000 years'"
	}
	return `
  with gone as (delete from pgwaltz.conflict where id in (
    select id from pgwaltz.conflict where detected_at < now() - greatest(older_than, ` + keep + `) order by detected_at limit at_most) returning 1)
  select count(*) from gone
`
}
