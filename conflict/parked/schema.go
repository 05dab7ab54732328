package parked

// Schema creates the table; the schema pgwaltz must exist. It is re-runnable.
const Schema = `create table if not exists pgwaltz.parked (
  id          bigint generated always as identity primary key,
  origin      text not null,
  schema_name text collate "C" not null,
  table_name  text collate "C" not null,
  key         text collate "C" not null,
  table_oid   oid not null default 0,
  commit_lsn  pg_lsn,
  kind        smallint not null default 0,
  born        boolean not null default false,
  generation  bigint,
  version     bigint,
  updated_at  bigint,
  op          text,
  event       bytea,
  row         jsonb,
  sqlstate    text not null default '',
  message     text,
  definition  text not null default '',
  parked_at   timestamptz not null default now(),
  retried_at  timestamptz,
  attempts    int not null default 0,
  wanted      boolean not null default false,
  held        boolean not null default false,
  denied      text[] not null default '{}',
  unique (schema_name, table_name, key)
)`

// Indexes are the names and statements of the indexes beside the keys, re-runnable.
func Indexes() [][2]string {
	return [][2]string{
		{"parked_queue", `create index if not exists parked_queue on pgwaltz.parked (origin, schema_name, table_name, sqlstate, id)`},
		{"parked_since", `create index if not exists parked_since on pgwaltz.parked (parked_at)`},
		{"parked_wanted", `create index if not exists parked_wanted on pgwaltz.parked (origin) where wanted`},
	}
}
