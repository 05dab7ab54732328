package cutover

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/wal"
)

// path is how the source's rows come to the destination, and how far they are.
type path struct {
	mode    config.Mode
	at      wal.LSN // of the source: what is below it is applied at the destination, and on its disk
	applied wal.LSN // of the source, as the destination's own database has it, which goes back with a standby that lags; 0: this role may not read it
	came    wal.LSN // of the source, in mode native: what the worker of the destination's own subscription has got; a slot may be read by another database's
	end     wal.LSN // of the source's WAL
	open    string  // why it says nothing of all tables; "" is fine
	broken  string  // why nothing will come; "" is fine
	parked  int64   // changes of the source that the destination knows and cannot show
	reverse bool    // the destination's rows come to the source
}

// look reads it.
func (e *Ends) look(ctx context.Context) (*path, error) {
	var err error
	p := &path{}
	row, err := fallback.Load(ctx, e.Destination.Conn, e.Destination.Region)
	if err != nil {
		return nil, err
	}
	p.mode = fallback.InEffect(e.cfg, row)
	if row != nil && !row.Settled {
		p.broken = fmt.Sprintf("the switch of region %s to mode %s was cut off", e.Destination.Region, row.Mode)
		return p, nil
	}
	if p.end, err = pg.WALEnd(ctx, e.Source.Conn); err != nil {
		return nil, err
	}
	switch p.mode {
	case config.ModeNative:
		return p, e.subscribed(ctx, p, nativeSQL)
	case config.ModePglogical:
		return p, e.subscribed(ctx, p, pglogicalSQL)
	}
	return p, e.streamed(ctx, p)
}

func (e *Ends) streamed(ctx context.Context, p *path) error {
	at, found, err := pgstore.Load(ctx, e.Destination.Conn, e.Source.Region)
	switch {
	case pg.Code(err) == "42P01" || pg.Code(err) == "3F000":
		p.broken = fmt.Sprintf("region %s is not set up", e.Destination.Region)
		return nil
	case err != nil:
		return err
	case !found:
		p.broken = fmt.Sprintf("nothing of region %s was ever applied at %s", e.Source.Region, e.Destination.Region)
		return nil
	case at.Epoch.SystemID != e.Source.Sys.SystemID || at.Epoch.Timeline != e.Source.Sys.Timeline:
		p.broken = fmt.Sprintf("what was applied at %s is of another life of the server of %s", e.Destination.Region, e.Source.Region)
		return nil
	}
	slot, err := pg.LoadSlot(ctx, e.Source.Conn, at.Epoch.Slot)
	switch {
	case err != nil:
		return err
	case slot != nil && slot.Database != e.Source.Sys.Database:
		p.broken = fmt.Sprintf("what was applied at %s is of database %s of the server of %s, and not of %s", e.Destination.Region, slot.Database, e.Source.Region, e.Source.Sys.Database)
		return nil
	}
	p.at, p.applied = at.EndLSN, at.EndLSN
	counts, err := parked.Counts(ctx, e.Destination.Conn)
	if err != nil {
		return err
	}
	p.parked = counts[e.Source.Region]
	jobs, err := tablecopy.Load(ctx, e.Source.Conn)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if j.Open() || j.State == tablecopy.Done && !j.Whole {
			p.open = fmt.Sprintf("the copy of table %s is not done", j.Table)
		}
	}
	_, p.reverse, err = pgstore.Load(ctx, e.Source.Conn, e.Destination.Region)
	return err
}

// Each gives: is it enabled, its slot, a table that is not ready, its replication origin. $1 is the name that pgwaltz gives the subscription; one of pglogical may have another.
const (
	nativeSQL = `select s.subenabled, coalesce(s.subslotname, '')::text, coalesce((select min(r.srrelid::pg_catalog.regclass::text) from pg_catalog.pg_subscription_rel r where r.srsubid = s.oid and r.srsubstate <> 'r'), ''), 'pg_' || s.oid
from pg_catalog.pg_subscription s join pg_catalog.pg_database d on d.oid = s.subdbid where s.subname = $1 and d.datname = pg_catalog.current_database()`
	pglogicalSQL = `select s.sub_enabled, s.sub_slot_name::text, coalesce((select min(y.sync_relname::text) from pglogical.local_sync_status y where y.sync_subid = s.sub_id and y.sync_relname is not null and y.sync_status <> 'r'), ''), s.sub_slot_name::text
from pglogical.subscription s order by s.sub_name = $1 desc limit 1`
)

// subscription is one of an end to another region.
type subscription struct {
	enabled               bool
	slot, waiting, origin string
}

// subscription reads it; nil where there is none.
func (e *Ends) subscription(ctx context.Context, at, to *End, sql string) (*subscription, error) {
	var s subscription
	err := at.Conn.QueryRow(ctx, sql, config.DefaultSlot(e.cfg.Cluster, to.Region)).Scan(&s.enabled, &s.slot, &s.waiting, &s.origin)
	switch {
	case errors.Is(err, pgx.ErrNoRows), pg.Code(err) == "42P01", pg.Code(err) == "3F000":
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the subscription of %s: %w", at.Region, err)
	}
	return &s, nil
}

func (e *Ends) subscribed(ctx context.Context, p *path, sql string) error {
	sub, err := e.subscription(ctx, e.Destination, e.Source, sql)
	switch {
	case err != nil:
		return err
	case sub == nil:
		p.broken = fmt.Sprintf("there is no subscription to %s at %s", e.Source.Region, e.Destination.Region)
		return nil
	case !sub.enabled:
		p.broken = fmt.Sprintf("the subscription at %s is disabled", e.Destination.Region)
		return nil
	}
	back, err := e.subscription(ctx, e.Source, e.Destination, sql)
	if err != nil {
		return err
	}
	p.reverse = back != nil && back.enabled
	slot, waiting := sub.slot, sub.waiting
	s, err := pg.LoadSlot(ctx, e.Source.Conn, slot)
	switch {
	case err != nil:
		return err
	case s == nil || s.Lost() || s.Database != e.Source.Sys.Database:
		p.broken = fmt.Sprintf("slot %q, which the subscription reads, is not in the database of %s, or is lost", slot, e.Source.Region)
		return nil
	}
	p.at = s.ConfirmedFlushLSN
	var applied string
	err = e.Destination.Conn.QueryRow(ctx, `select coalesce(o.remote_lsn, '0/0')::text from pg_catalog.pg_replication_origin_status o where o.external_id = $1`, sub.origin).Scan(&applied)
	switch {
	case errors.Is(err, pgx.ErrNoRows), pg.Code(err) == "42501":
	case err != nil:
		return fmt.Errorf("read how far %s has applied: %w", e.Destination.Region, err)
	default:
		if p.applied, err = wal.ParseLSN(applied); err != nil {
			return err
		}
	}
	if p.mode == config.ModePglogical {
		err = e.working(ctx, p, slot)
	} else {
		err = e.received(ctx, p)
	}
	if err != nil {
		return err
	}
	if waiting != "" {
		p.open = fmt.Sprintf("table %s of the subscription is not ready", waiting)
	}
	return nil
}

// received reads what the worker of a native subscription at the destination has got; 0 where none is at work.
func (e *Ends) received(ctx context.Context, p *path) error {
	var came string
	err := e.Destination.Conn.QueryRow(ctx, `select coalesce(pg_catalog.max(greatest(w.received_lsn, w.latest_end_lsn)), '0/0')::text from pg_catalog.pg_stat_subscription w
join pg_catalog.pg_subscription s on s.oid = w.subid join pg_catalog.pg_database d on d.oid = s.subdbid
where s.subname = $1 and d.datname = pg_catalog.current_database() and w.pid is not null and w.relid is null`, config.DefaultSlot(e.cfg.Cluster, e.Source.Region)).Scan(&came)
	if err != nil {
		return fmt.Errorf("read what the subscription of %s has received: %w", e.Destination.Region, err)
	}
	p.came, err = wal.ParseLSN(came)
	return err
}

// working notes where pglogical says that its subscription to slot is not at work.
func (e *Ends) working(ctx context.Context, p *path, slot string) error {
	var word string
	err := e.Destination.Conn.QueryRow(ctx, `select coalesce((select status from pglogical.show_subscription_status() where slot_name = $1 limit 1), 'unknown')`, slot).Scan(&word)
	switch {
	case pg.Code(err) == "42501":
	case err != nil:
		return fmt.Errorf("read the status of the subscription of %s: %w", e.Destination.Region, err)
	case word != "replicating":
		p.open = fmt.Sprintf("pglogical says at %s that its subscription is %s", e.Destination.Region, word)
	}
	return nil
}

func (p *path) findings() (fs preflight.Findings) {
	add := func(severity preflight.Severity, code, what, remedy string) {
		fs = append(fs, preflight.Finding{Severity: severity, Code: code, What: what, Remedy: remedy})
	}
	if p.broken != "" {
		add(preflight.Error, "no_way", p.broken, "pgwaltz status")
		return fs
	}
	if p.open != "" {
		add(preflight.Warning, "not_ready", p.open, "wait until it is")
	}
	if p.parked > 0 {
		add(preflight.Warning, "parked", fmt.Sprintf("%d changes of the source are parked at the destination", p.parked), "pgwaltz parked list")
	}
	if !p.reverse {
		add(preflight.Warning, "no_way_back", "nothing brings the destination's rows to the source: behind the cutover there is no going back", "direction: both, before the cutover; or pgwaltz cutover finish --reverse, in mode native")
	}
	return fs
}
