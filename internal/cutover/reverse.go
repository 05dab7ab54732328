package cutover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
)

// Finishing is what Finish does with what moved the rows.
type Finishing struct {
	// Reverse, in mode native: the destination's rows come to the source from then on, so that going back is possible.
	Reverse bool
	// Drop removes the subscription at the destination, its slot, and in mode native what the source publishes. Reverse removes the first two as well.
	Drop bool
	// DSN is the destination as the source's server reaches it; zero is what the configuration says.
	DSN config.DSN
	// Told is called behind each statement; nil for nobody.
	Told func(region string, s fallback.Statement)
}

// What a reversal makes, as it is noted.
const (
	madePublication  = "publication"
	madeSlot         = "slot"
	madeSubscription = "subscription"
)

// ownOnly is the version from which on a subscription can leave out what its publisher has not written itself, and say with whose rights it applies.
const ownOnly = 160000

// turning is the way back of one cutover, over native subscriptions.
type turning struct {
	*Ends
	how                                Finishing
	publication, slot, forward, behind string // behind: the subscription at the source
	published                          *pg.Publication
	there                              *pg.Publication // at the destination; nil for none
	slotThere                          *pg.Slot
	back                               *subscription
}

// turn reads what is there of the way back; it changes nothing. nil: it is there and at work, or not wanted.
func (e *Ends) turn(ctx context.Context, s *hold.State, how Finishing) (*turning, error) {
	mode, err := e.mode(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case how.Reverse && mode != config.ModeNative:
		return nil, &UsageError{fmt.Sprintf("--reverse is for mode native, and the mode is %s", mode), "direction: both in mode stream and pglogical, before the cutover"}
	case how.Drop && mode == config.ModeStream:
		return nil, &UsageError{"--drop is for subscriptions, and in mode stream there are none", "stop the sidecars"}
	case !how.Reverse:
		return nil, nil
	}
	t := &turning{Ends: e, how: how, publication: e.cfg.Postgres.Publication, slot: config.DefaultSlot(e.cfg.Cluster, e.Destination.Region),
		forward: config.DefaultSlot(e.cfg.Cluster, e.Source.Region), behind: config.DefaultSlot(e.cfg.Cluster, e.Destination.Region)}
	if e.Destination.Region == e.cfg.Region {
		t.slot = e.cfg.Postgres.Slot
	}
	if t.back, err = e.subscription(ctx, e.Source, e.Destination, nativeSQL); err != nil {
		return nil, err
	}
	if t.back != nil && t.back.slot != "" {
		t.slot = t.back.slot
	}
	if t.published, err = pg.LoadPublication(ctx, e.Source.Conn, t.publication); err != nil {
		return nil, err
	}
	if t.there, err = pg.LoadPublication(ctx, e.Destination.Conn, t.publication); err != nil {
		return nil, err
	}
	if t.slotThere, err = pg.LoadSlot(ctx, e.Destination.Conn, t.slot); err != nil {
		return nil, err
	}
	return t, t.refuse(s)
}

// mode is what brings rows to the destination.
func (e *Ends) mode(ctx context.Context) (config.Mode, error) {
	row, err := fallback.Load(ctx, e.Destination.Conn, e.Destination.Region)
	if err != nil {
		return "", err
	}
	return fallback.InEffect(e.cfg, row), nil
}

func (t *turning) refuse(s *hold.State) error {
	no := func(remedy, format string, args ...any) error {
		return &NotReadyError{"no way back can be made: " + fmt.Sprintf(format, args...), remedy}
	}
	d := t.Destination.Region
	switch p := t.slotThere; {
	case t.published == nil:
		return no("pgwaltz setup there", "region %s has no publication %q", t.Source.Region, t.publication)
	case s.Finished && (p == nil || t.back == nil):
		return no("let the application write at the source, by abort --force, and cut over again", "the cutover is finished, and %s may have been written to since", d)
	case p != nil && (p.Plugin != "pgoutput" || p.Database != t.Destination.Sys.Database || p.Lost()):
		return no("drop it, if nobody needs it", "slot %q at %s is of another plugin or database, or is lost", t.slot, d)
	case p != nil && t.back == nil && !slices.Contains(s.Made, madeSlot):
		return no("drop it, if nobody needs it", "slot %q is at %s already, and is not this cutover's", t.slot, d)
	case t.back != nil && !t.back.enabled && !s.Finished && !slices.Contains(s.Made, madeSubscription):
		return no("enable it, or drop it with its slot", "subscription %q at %s is disabled, and is not this cutover's", t.behind, t.Source.Region)
	case len(s.LeftAlone) > 0 && min(t.Source.Sys.Version, t.Destination.Sys.Version) < ownOnly:
		return no("pause-write without --except", "roles that are left alone (%s) may write meanwhile, and before PostgreSQL 16 their rows would come back to %s", strings.Join(s.LeftAlone, ", "), t.Source.Region)
	}
	for _, table := range t.published.Tables {
		if table.RowFilter != "" || table.ColumnList {
			return no("make it by hand", "table %s is published with a row filter or a list of columns", table.Name)
		}
		if t.there != nil && !t.there.Has(table.Name) {
			return no("pgwaltz setup there, or drop it", "publication %q at %s has no table %s", t.publication, d, table.Name)
		}
	}
	return nil
}

// dsn is the destination as the source's server reaches it.
func (t *turning) dsn() config.DSN {
	if !t.how.DSN.IsZero() {
		return t.how.DSN
	}
	for _, p := range t.cfg.Peers {
		if p.Region == t.Destination.Region {
			return p.DSN
		}
	}
	return t.cfg.Postgres.DSN
}

// prepare makes all that is needed, and lets nothing flow yet. What it makes is noted before. When it fails it is taken away again.
func (t *turning) prepare(ctx context.Context) (err error) {
	var made []string
	for what, missing := range map[string]bool{madePublication: t.there == nil, madeSlot: t.slotThere == nil, madeSubscription: t.back == nil} {
		if missing {
			made = append(made, what)
		}
	}
	slices.Sort(made)
	if err := hold.Make(ctx, t.Source.Conn, made); err != nil {
		return over(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.undo(context.WithoutCancel(ctx), made))
		}
	}()
	var names []string
	for _, table := range t.published.Tables {
		names = append(names, pg.QuoteTable(table.Name.Schema, table.Name.Name))
	}
	var verbs []string
	for verb, sent := range map[string]bool{"insert": t.published.Insert, "update": t.published.Update, "delete": t.published.Delete, "truncate": t.published.Truncate} {
		if sent {
			verbs = append(verbs, verb)
		}
	}
	slices.Sort(verbs)
	identities, err := t.identities(ctx)
	if err != nil {
		return err
	}
	for _, sql := range identities {
		if err := t.run(ctx, t.Destination, fallback.Statement{SQL: sql, Why: "updates and deletes carry the row that they overwrite"}); err != nil {
			return err
		}
	}
	if err := t.run(ctx, t.Destination, fallback.Statement{Done: t.there != nil, Why: "what is written there is published",
		SQL: fmt.Sprintf("create publication %s for table %s with (publish = %s, publish_via_partition_root = %t)", pg.Quote(t.publication), strings.Join(names, ", "), pg.Literal(strings.Join(verbs, ", ")), t.published.ViaRoot)}); err != nil {
		return err
	}
	if err := t.run(ctx, t.Destination, fallback.Statement{Done: t.slotThere != nil, Why: "from here on nothing of it is missing",
		SQL: fmt.Sprintf("select pg_catalog.pg_create_logical_replication_slot(%s, 'pgoutput')", pg.Literal(t.slot))}); err != nil {
		return err
	}
	options := ""
	if t.Source.Sys.Version >= ownOnly && t.Destination.Sys.Version >= ownOnly {
		options = ", origin = none"
	}
	if t.Source.Sys.Version >= ownOnly { // owners of tables are held
		options += ", run_as_owner = true"
	}
	sql := fmt.Sprintf("create subscription %s connection %%s publication %s with (enabled = false, create_slot = false, slot_name = %s, copy_data = false, streaming = on, binary = false%s)",
		pg.Quote(t.behind), pg.Quote(t.publication), pg.Quote(t.slot), options)
	return t.run(ctx, t.Source, fallback.Statement{Done: t.back != nil, SQL: fmt.Sprintf(sql, pg.Literal(t.dsn().Reveal())), Shown: fmt.Sprintf(sql, pg.Literal(t.dsn().String())), Secret: t.dsn(),
		Why: "what " + t.Destination.Region + " commits can come to " + t.Source.Region})
}

// identities gives tables without a key the identity that they have at the source: else their updates would fail when they are published.
func (t *turning) identities(ctx context.Context) (out []string, err error) {
	if t.there != nil {
		return nil, nil
	}
	for _, table := range t.published.Tables {
		d, err := pg.LoadTable(ctx, t.Destination.Conn, table.Name.Schema, table.Name.Name)
		if err != nil {
			return nil, err
		}
		if !d.HasIdentity() {
			out = append(out, "alter table "+d.SQL()+" replica identity full")
		}
	}
	return out, nil
}

// run runs one statement.
func (t *turning) run(ctx context.Context, at *End, s fallback.Statement) error {
	p := &fallback.Plan{To: config.ModeNative, Statements: []fallback.Statement{s}}
	err := p.Run(ctx, at.Conn, func(s fallback.Statement) {
		if t.how.Told != nil {
			t.how.Told(at.Region, s)
		}
	})
	if err != nil {
		return fmt.Errorf("region %s: %w", at.Region, err)
	}
	if s.Done {
		return nil
	}
	return failpoint.Hit("cutover.turned")
}

// let takes the subscription at the destination away, and lets the way back begin. It may be run again.
func (t *turning) let(ctx context.Context) error {
	if err := t.Ends.drop(ctx, config.ModeNative, t.how); err != nil {
		return err
	}
	return t.run(ctx, t.Source, fallback.Statement{Done: t.back != nil && t.back.enabled, SQL: "alter subscription " + pg.Quote(t.behind) + " enable",
		Why: "from here on the server of " + t.Source.Region + " applies what " + t.Destination.Region + " commits"})
}

// drop takes away what moved the rows. What is gone already is left out.
func (e *Ends) drop(ctx context.Context, mode config.Mode, how Finishing) error {
	t := &turning{Ends: e, how: how}
	sql := nativeSQL
	if mode == config.ModePglogical {
		sql = pglogicalSQL
	}
	sub, err := e.subscription(ctx, e.Destination, e.Source, sql)
	if err != nil {
		return err
	}
	name := config.DefaultSlot(e.cfg.Cluster, e.Source.Region)
	switch {
	case mode == config.ModePglogical:
		return t.run(ctx, e.Destination, fallback.Statement{Done: sub == nil, SQL: "select pglogical.drop_subscription(sub_name) from pglogical.subscription where sub_slot_name = " + pg.Literal(subSlot(sub)), Why: "nothing is to come any more; its slot goes with it"})
	case sub == nil:
	default:
		q := pg.Quote(name)
		for _, s := range []fallback.Statement{
			{Done: !sub.enabled, SQL: "alter subscription " + q + " disable", Why: "nothing is to come from " + e.Source.Region + " any more"},
			{Done: sub.slot == "", SQL: "alter subscription " + q + " set (slot_name = none)", Why: "it lets go of its slot"},
			{SQL: "drop subscription " + q, Why: "all that was written at " + e.Source.Region + " is here"},
		} {
			if err := t.run(ctx, e.Destination, s); err != nil {
				return err
			}
		}
	}
	slot := e.cfg.Postgres.Slot
	if e.Source.Region != e.cfg.Region {
		slot = name
	}
	if sub != nil && sub.slot != "" {
		slot = sub.slot
	}
	if err := t.dropSlot(ctx, e.Source, slot, "nobody reads it any more"); err != nil {
		return err
	}
	if !how.Drop || how.Reverse {
		return nil
	}
	pub, err := pg.LoadPublication(ctx, e.Source.Conn, e.cfg.Postgres.Publication)
	if err != nil {
		return err
	}
	return t.run(ctx, e.Source, fallback.Statement{Done: pub == nil, SQL: "drop publication " + pg.Quote(e.cfg.Postgres.Publication), Why: "nobody reads it any more"})
}

func subSlot(s *subscription) string {
	if s == nil {
		return ""
	}
	return s.slot
}

// slotWait bounds the wait for the session of a worker that was told to end.
const slotWait = 15 * time.Second

// dropSlot drops a slot of a native subscription, once nobody reads it.
func (t *turning) dropSlot(ctx context.Context, at *End, name, why string) error {
	for began := time.Now(); ; {
		s, err := pg.LoadSlot(ctx, at.Conn, name)
		switch {
		case err != nil:
			return err
		case s == nil || s.Plugin != "pgoutput" || s.Database != at.Sys.Database:
			return nil
		case s.Active && time.Since(began) > slotWait:
			return fmt.Errorf("region %s: slot %q is read by process %d still", at.Region, name, s.ActivePID)
		case !s.Active:
			return t.run(ctx, at, fallback.Statement{SQL: "select pg_catalog.pg_drop_replication_slot(" + pg.Literal(name) + ")", Why: why})
		}
		if err := pause.For(ctx, lookEvery); err != nil {
			return err
		}
	}
}

// undo takes away what prepare has made.
func (t *turning) undo(ctx context.Context, made []string) error {
	ctx, cancel := context.WithTimeout(ctx, slotWait+10*time.Second)
	defer cancel()
	if err := errors.Join(t.Source.again(ctx), t.Destination.again(ctx)); err != nil {
		return err
	}
	if slices.Contains(made, madeSubscription) {
		sub, err := t.subscription(ctx, t.Source, t.Destination, nativeSQL)
		if err != nil {
			return err
		}
		if sub != nil {
			for _, sql := range []string{" disable", " set (slot_name = none)"} {
				if _, err := t.Source.Conn.Exec(ctx, "alter subscription "+pg.Quote(t.behind)+sql); err != nil {
					return fmt.Errorf("region %s: %w", t.Source.Region, err)
				}
			}
			if _, err := t.Source.Conn.Exec(ctx, "drop subscription "+pg.Quote(t.behind)); err != nil {
				return fmt.Errorf("region %s: %w", t.Source.Region, err)
			}
		}
	}
	if slices.Contains(made, madeSlot) {
		if err := t.dropSlot(ctx, t.Destination, t.slot, "there is no way back"); err != nil {
			return err
		}
	}
	if slices.Contains(made, madePublication) {
		if _, err := t.Destination.Conn.Exec(ctx, "drop publication if exists "+pg.Quote(t.publication)); err != nil {
			return fmt.Errorf("region %s: %w", t.Destination.Region, err)
		}
	}
	return hold.Make(ctx, t.Source.Conn, nil)
}

// unturn is undo for abort: of a cutover that was cut off before it was finished.
func (e *Ends) unturn(ctx context.Context, s *hold.State) error {
	if s == nil || s.Finished || len(s.Made) == 0 {
		return nil
	}
	t := &turning{Ends: e, publication: e.cfg.Postgres.Publication, slot: config.DefaultSlot(e.cfg.Cluster, e.Destination.Region), behind: config.DefaultSlot(e.cfg.Cluster, e.Destination.Region)}
	if e.Destination.Region == e.cfg.Region {
		t.slot = e.cfg.Postgres.Slot
	}
	if err := t.undo(ctx, s.Made); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	return nil
}
