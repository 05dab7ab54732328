package sidecar

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/node"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Resynced says what Resync has asked for and done.
type Resynced struct {
	Tables      int    // will be copied
	SlotMade    bool   // the slot was created
	SlotDropped bool   // after a lost one was dropped
	SlotKept    bool   // it was to be created anew, and can be read on
	Gap         string // the gap that will be accepted, "" when none is noted
	Whole       bool   // all tables: a gap will be accepted
}

// Resync asks the region's sidecar, through the database, to copy tables again: the named
// ones, or all. All of them together also accept a gap of the stream. recreateSlot replaces a
// slot that the server has given up. The sidecar may run or not: it finds the request when it
// begins. Running it twice copies twice and does nothing else.
func Resync(ctx context.Context, cfg *config.Config, tables []string, recreateSlot bool) (done Resynced, err error) {
	dsn := cfg.Postgres.AdminDSN
	if dsn.IsZero() {
		dsn = cfg.Postgres.DSN
	}
	conn, err := pg.Connect(ctx, dsn.Reveal(), pg.Options{Region: cfg.Region, Role: "resync"})
	if err != nil {
		return done, err
	}
	defer closeConn(conn)
	// Nothing is done where the rest cannot be: a slot that nobody reads keeps its WAL for ever.
	if err := isSetUp(ctx, conn, cfg); err != nil {
		return done, err
	}
	if err := mayResync(ctx, conn, cfg); err != nil {
		return done, err
	}
	if err := done.request(ctx, conn, cfg, tables, func(context.Context, pgx.Tx) error { return errTrial }); !errors.Is(err, errTrial) {
		return done, err
	}
	if err := done.makeSlot(ctx, conn, cfg, recreateSlot); err != nil {
		return done, err
	}
	return done, done.request(ctx, conn, cfg, tables, func(ctx context.Context, tx pgx.Tx) error {
		if err := tx.Commit(ctx); err != nil {
			return fmt.Errorf("request resync: %w", err)
		}
		return nil
	})
}

// Rejoin is Resync of all tables in a region that comes back to the stream. The stream opens anew in any case: its peers read on
// with the incarnation that begins then, whether the slot has moved or not.
func Rejoin(ctx context.Context, cfg *config.Config) error {
	dsn := cfg.Postgres.AdminDSN
	if dsn.IsZero() {
		dsn = cfg.Postgres.DSN
	}
	conn, err := pg.Connect(ctx, dsn.Reveal(), pg.Options{Region: cfg.Region, Role: "resync"})
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if err := isSetUp(ctx, conn, cfg); err != nil {
		return err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("note the way back: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit it does nothing
	at, err := walEnd(ctx, conn)
	if err != nil {
		return err
	}
	first, err := streamstore.NoteGap(ctx, tx, cfg.Region, at, at, false, "the region comes back from another mode")
	if err == nil && first {
		err = pgstore.NoteKnown(ctx, tx)
	}
	if err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("note the way back: %w", err)
	}
	_, err = Resync(ctx, cfg, nil, false)
	return err
}

// errTrial ends a request that is only tried.
var errTrial = errors.New("only tried")

// isSetUp refuses a database that is not set up for the region, or not to publish.
func isSetUp(ctx context.Context, conn *pgx.Conn, cfg *config.Config) error {
	var schema, publication bool
	err := conn.QueryRow(ctx, `select pg_catalog.to_regclass('pgwaltz.node') is not null and pg_catalog.to_regclass('pgwaltz.copy') is not null
  and pg_catalog.to_regclass('pgwaltz.stream') is not null and pg_catalog.to_regclass('pgwaltz.peer') is not null,
  exists (select from pg_catalog.pg_publication where pubname = $1)`, cfg.Postgres.Publication).Scan(&schema, &publication)
	if err != nil {
		return fmt.Errorf("look at the database: %w", err)
	}
	if !schema {
		return &hintError{errors.New("this database is not set up"), "pgwaltz setup --config FILE"}
	}
	is, err := node.Load(ctx, conn)
	if err != nil {
		return err
	}
	if wrong := is.Differs(node.Row{Region: cfg.Region, Cluster: cfg.Cluster}); wrong != "" {
		return &hintError{errors.New(wrong), "point postgres.dsn to the right database"}
	}
	if is.Region == "" || !publication {
		return &hintError{fmt.Errorf("this database is not set up: publication %q does not exist, or pgwaltz.node is empty", cfg.Postgres.Publication), "pgwaltz setup --config FILE"}
	}
	return nil
}

// mayResync refuses where no stream is at work. A slot that is created anew would be read on by the peer's subscription as if
// nothing were missing, and nobody would copy anything. While the region goes back to the stream it may.
func mayResync(ctx context.Context, conn *pgx.Conn, cfg *config.Config) error {
	row, err := fallback.Load(ctx, conn, cfg.Region)
	if err != nil {
		return err
	}
	if mode := fallback.InEffect(cfg, row); mode != config.ModeStream {
		return &hintError{fmt.Errorf("this region is in mode %s: nothing is copied, and a gap stays", mode), "pgwaltz mode switch stream --config FILE, then pgwaltz resync"}
	}
	return nil
}

// request asks for the copies, and for a gap to be accepted, in a transaction that end commits.
func (r *Resynced) request(ctx context.Context, conn *pgx.Conn, cfg *config.Config, tables []string, end func(context.Context, pgx.Tx) error) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("request resync: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if r.Tables, err = tablecopy.Request(ctx, tx, cfg.Postgres.Publication, tables); errors.Is(err, tablecopy.ErrNotPublished) {
		return &hintError{err, "pgwaltz setup --config FILE"}
	}
	if err != nil {
		return err
	}
	out, err := tablecopy.LeaveOut(ctx, tx, func(n wal.RelationName) bool { return cfg.Excluded(n.Schema, n.Name) })
	if err != nil {
		return err
	}
	if len(tables) == 0 {
		r.Tables -= len(out)
		r.Whole = true
		if r.Gap, err = streamstore.RequestResync(ctx, tx, cfg.Region); err != nil {
			return err
		}
		if err := node.Provided(ctx, tx); err != nil {
			return err
		}
	} else if len(out) > 0 {
		return &hintError{fmt.Errorf("table %s is left out with tables.exclude", out[0]), "take it out of tables.exclude, and restart the sidecar"}
	}
	return end(ctx, tx)
}

// makeSlot creates the slot where it is missing, and replaces one that cannot be read on when asked
// to.
func (r *Resynced) makeSlot(ctx context.Context, conn *pgx.Conn, cfg *config.Config, recreate bool) error {
	slot, err := pg.LoadSlot(ctx, conn, cfg.Postgres.Slot)
	if err != nil {
		return err
	}
	if slot != nil {
		lost := slot.Lost()
		if lost && !recreate {
			return &hintError{fmt.Errorf("slot %q is lost: the server removed WAL that it needed", cfg.Postgres.Slot), "pgwaltz resync --config FILE --recreate-slot"}
		}
		if !lost && recreate {
			if lost, err = undecodable(ctx, conn, cfg); err != nil {
				return err
			}
		}
		if !lost {
			r.SlotKept = recreate
			return nil
		}
		if _, err := conn.Exec(ctx, `select pg_catalog.pg_drop_replication_slot($1)`, cfg.Postgres.Slot); err != nil {
			return fmt.Errorf("drop slot %q: %w", cfg.Postgres.Slot, err)
		}
		r.SlotDropped = true
	}
	if _, err := conn.Exec(ctx, `select pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')`, cfg.Postgres.Slot); err != nil {
		return fmt.Errorf("create slot %q: %w", cfg.Postgres.Slot, err)
	}
	r.SlotMade = true
	return nil
}

// undecodable reports that the server refuses to decode what the slot reads next because the
// publication did not exist when that was written. A slot that somebody reads is sound.
func undecodable(ctx context.Context, conn *pgx.Conn, cfg *config.Config) (bool, error) {
	for tries := 0; ; tries++ {
		_, err := conn.Exec(ctx, `select from pg_catalog.pg_logical_slot_peek_binary_changes($1, null, 100000, 'proto_version', '1', 'publication_names', $2)`,
			cfg.Postgres.Slot, pg.Quote(cfg.Postgres.Publication))
		switch code := pg.Code(err); {
		case err == nil:
			return false, nil
		case code == undefinedObject:
			return true, nil
		case code == "55006" && tries == peekTries:
			return false, nil
		case code != "55006":
			return false, fmt.Errorf("read slot %q: %w", cfg.Postgres.Slot, err)
		}
		// A sidecar that tries again and again has it for a moment each time.
		if err := pause.For(ctx, peekPause); err != nil {
			return false, err
		}
	}
}

const (
	peekTries = 10
	peekPause = 200 * time.Millisecond
)

// String says it in lines for an operator.
func (r Resynced) String() string {
	var b strings.Builder
	switch {
	case r.SlotDropped:
		fmt.Fprintln(&b, "The slot could not be read on; it was dropped and created anew.")
	case r.SlotMade:
		fmt.Fprintln(&b, "The slot was missing and was created.")
	case r.SlotKept:
		fmt.Fprintln(&b, "The slot can be read on, and stays as it is.")
	}
	switch {
	case r.Gap != "":
		fmt.Fprintf(&b, "The gap is accepted (%s): the stream opens anew behind it.\n", r.Gap)
	case r.Whole:
		fmt.Fprintln(&b, "No gap is noted. If the sidecar finds one when it looks, or a peer tells of one in the next ten minutes, it is accepted.")
	}
	fmt.Fprintf(&b, "%d tables will be copied to the peers; watch `pgwaltz status`.\n", r.Tables)
	if r.Whole {
		fmt.Fprintln(&b, "Rows that only a peer has are listed by: pgwaltz keys. They come back with: pgwaltz resync at that peer.")
	}
	return b.String()
}

// hintError is an error with a remedy.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }
func (e *hintError) Hint() string  { return e.hint }
