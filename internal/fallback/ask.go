package fallback

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

// Regions that switch by themselves agree through the table pgwaltz.mode of the region that publishes: the peer's process writes into it
// what it wants, and the region's own process, where one is alive, obeys it within a second or two. Where none is alive it finds the word when it
// starts, before it reads its slot.

// Asked is what a region says to a peer's process that looks into its database.
type Asked struct {
	Row  *Row // nil: it was never switched
	Auto bool // its process takes part in automatic switches
	May  bool // this session may ask it for something
}

// LookAsked reads it, in a session with the region's database.
func LookAsked(ctx context.Context, conn *pgx.Conn, region string) (a Asked, err error) {
	err = conn.QueryRow(ctx, `select coalesce(pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace('pgwaltz')::oid, 'usage') and pg_catalog.has_table_privilege(pg_catalog.to_regclass('pgwaltz.mode')::oid, 'select')
  and pg_catalog.has_table_privilege(pg_catalog.to_regclass('pgwaltz.mode')::oid, 'update'), false)`).Scan(&a.May)
	if err != nil {
		return a, fmt.Errorf("look for pgwaltz.mode of region %s: %w", region, err)
	}
	if !a.May {
		return a, nil
	}
	if a.Auto, err = TakesPart(ctx, conn, region); err != nil {
		return a, err
	}
	a.Row, err = Load(ctx, conn, region)
	return a, err
}

// TakesPart reports whether the region's process has noted that it takes part in automatic switches.
func TakesPart(ctx context.Context, q pg.Querier, region string) (part bool, err error) {
	var there bool
	err = q.QueryRow(ctx, `select pg_catalog.to_regclass('pgwaltz.mode') is not null`).Scan(&there)
	if err == nil && there {
		err = q.QueryRow(ctx, `select coalesce(pg_catalog.bool_or((pg_catalog.to_jsonb(m) ->> 'auto')::boolean), false) from pgwaltz.mode m where region = $1`, region).Scan(&part)
	}
	if err != nil {
		return false, fmt.Errorf("read pgwaltz.mode of region %s: %w", region, err)
	}
	return part, nil
}

// Consent notes whether the region's own process takes part in automatic switches; conn is a session with its database, as the role that may
// change it. The schema must exist. runtime is the role of run. It may be repeated.
func Consent(ctx context.Context, conn *pgx.Conn, region, runtime string, on bool) error {
	var there, readable bool
	err := conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_attribute where attrelid = pg_catalog.to_regclass('pgwaltz.mode') and attname = 'auto'),
  coalesce((select pg_catalog.has_table_privilege(u.oid, pg_catalog.to_regclass('pgwaltz.mode')::oid, 'select') from pg_catalog.pg_roles u where u.rolname = $1), false)`, runtime).Scan(&there, &readable)
	switch {
	case err != nil:
	case !on && !there:
		return nil
	case !on:
		_, err = conn.Exec(ctx, `update pgwaltz.mode set auto = false where region = $1 and auto`, region)
	default:
		if !there {
			_, err = conn.Exec(ctx, Schema)
		}
		if err == nil && !readable {
			_, err = conn.Exec(ctx, GrantSQL(runtime))
		}
		if err == nil {
			_, err = conn.Exec(ctx, `insert into pgwaltz.mode as m (region, settled, since, auto) values ($1, true, pg_catalog.now(), true) on conflict (region) do update set auto = true where not m.auto`, region)
		}
	}
	if err != nil {
		return fmt.Errorf("note in pgwaltz.mode that this region is switched by itself: %w", err)
	}
	return nil
}

// AskNative asks the region for mode native in the name of by, its peer. false: it does not take part, or a person has switched it.
// Where it is in that mode already by itself, or on the way, nothing is changed.
func AskNative(ctx context.Context, conn *pgx.Conn, region, by string) (bool, error) {
	tag, err := conn.Exec(ctx, `update pgwaltz.mode set mode = $2, settled = coalesce(settled and mode = $2, false), since = case when mode = $2 then since else pg_catalog.now() end, by = coalesce(case when mode = $2 then by end, $3)
where region = $1 and auto and (mode is null or mode = $4 and (settled or by is not null) or mode = $2 and by is not null)`, region, string(config.ModeNative), by, string(config.ModeStream))
	if err != nil {
		return false, fmt.Errorf("ask region %s for mode native: %w", region, err)
	}
	return tag.RowsAffected() > 0, nil
}

// AskStream asks the region to come back to the stream, where it left it by itself. It may be repeated.
func AskStream(ctx context.Context, conn *pgx.Conn, region string) error {
	_, err := conn.Exec(ctx, `update pgwaltz.mode set mode = $2, settled = false, since = pg_catalog.now() where region = $1 and mode = $3 and by is not null`,
		region, string(config.ModeStream), string(config.ModeNative))
	if err != nil {
		return fmt.Errorf("ask region %s for mode stream: %w", region, err)
	}
	return nil
}

// Refuse says what stands in the way of asking a peer; nil for nothing.
func (a Asked) Refuse(d *Plan, p config.Peer) {
	switch {
	case !a.May:
		role := pg.Quote(p.DSN.User())
		d.Refuse("no_ask_right", fmt.Sprintf("start the sidecar of region %s with fallback in its configuration; then there, as the owner: grant usage on schema pgwaltz to %[2]s; grant select, update on pgwaltz.mode to %[2]s", p.Region, role),
			"role %q of peers[].dsn cannot ask region %s to let go of its slot (pgwaltz.mode)", p.DSN.User(), p.Region)
	case !a.Auto:
		d.Refuse("peer_stays", "set fallback in the configuration of region "+p.Region+", and start its sidecar once", "region %s does not take part in automatic switches", p.Region)
	case a.Row != nil && a.Row.By == "" && (a.Row.Mode != config.ModeStream || !a.Row.Settled):
		d.Refuse("peer_switched", "pgwaltz mode switch stream at region "+p.Region, "region %s was switched to mode %s by a person", p.Region, a.Row.Mode)
	}
}
