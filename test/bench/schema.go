package main

import "fmt"

// Base is what a database holds before the history: the same rows on both sides.
type Base struct {
	Rows   int
	Wide   bool // 2 kB of jsonb and 100 kB of text in every row
	Narrow int  // so many more tables of two numbers, narrow1 and so on, without rows
}

// tables are the names of all tables.
func (b Base) tables() []string {
	out := []string{"users", "mark"}
	for i := range b.Narrow {
		out = append(out, fmt.Sprintf("narrow%d", i+1))
	}
	return out
}

func (b Base) name() string {
	if b.Narrow > 0 {
		return fmt.Sprintf("base_%d_narrow_%d", b.Rows, b.Narrow)
	}
	if b.Wide {
		return fmt.Sprintf("base_wide_%d", b.Rows)
	}
	return fmt.Sprintf("base_%d", b.Rows)
}

const usersTable = `create table users (
  uuid uuid primary key default gen_random_uuid(),
  username text not null unique,
  email text,
  password text not null,
  level integer not null default 20,
  active boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  version bigint not null default 0,
  origin_node text not null default 'local'
)`

// markTable tells that everything before has arrived: a row with a new id is written after
// the history, and waited for.
const markTable = `create table mark (id bigint primary key, version bigint not null default 0, updated_at timestamptz not null default now())`

const touchFunction = `create function touch() returns trigger language plpgsql as $$
begin
  new.version := old.version + 1;
  new.updated_at := now();
  return new;
end $$`

// wideText is 100 kB that PostgreSQL compresses to about 4 kB and stores out of line: what an
// unchanged column costs does not depend on it, and the disk is spared.
const wideText = `repeat((select string_agg(md5(i::text || '/' || k), '') from generate_series(1, 94) k), 33)`

// profile is 2 kB of jsonb that does not compress, of a seed.
func profile(seed string) string {
	return `jsonb_build_object('bio', (select string_agg(md5(` + seed + `::text || k), '') from generate_series(1, 60) k))`
}

func (b Base) statements() []string {
	out := []string{usersTable, markTable}
	for _, t := range b.tables()[2:] {
		out = append(out, `create table `+t+` (id bigint primary key, n integer not null)`)
	}
	cols, vals := "", ""
	if b.Wide {
		out = append(out, `alter table users add profile jsonb, add notes text`)
		cols, vals = ", profile, notes", ", "+profile("i")+", "+wideText
	}
	return append(out,
		`create unique index users_email_lower_uk on users (lower(email))`,
		touchFunction,
		`create trigger trg_users_touch before update on users for each row execute function touch()`,
		`create sequence bench_next`, `create sequence bench_gone`,
		fmt.Sprintf(`insert into users (uuid, username, email, password, created_at, updated_at%s)
select md5(i::text)::uuid, 'user' || i, 'user' || i || '@example.com', '$2a$10$' || md5((i * 7)::text) || substr(md5((i * 11)::text), 1, 21),
  '2026-01-01 00:00:00Z', '2026-01-01 00:00:00Z'%s from generate_series(1, %d) i`, cols, vals, b.Rows),
		`vacuum (freeze, analyze)`,
	)
}

// hashQuery is one value that two databases share when their rows are the same.
func (b Base) hashQuery() string {
	q := usersHash
	for _, t := range b.tables()[2:] {
		q += ` || ' ' || (select count(*) || '/' || coalesce(sum(hashint8(id) # n), 0) from ` + t + `)`
	}
	return q
}

const usersHash = `select (select count(*) from users)::text || ' ' || (select md5(coalesce(string_agg(md5(u::text), '' order by u.uuid), '')) from users u)
  || ' ' || (select md5(coalesce(string_agg(id::text || '/' || version, ',' order by id), '')) from mark)`
