package pgsync

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/source/poll"
)

const (
	// slotWait bounds the wait for transactions that a new slot has to see the end of.
	slotWait = 10 * time.Second
	// busyWait bounds the wait for a session that still reads the slot: one of a worker that was killed ends soon.
	busyWait = 10 * time.Second
)

// obstacle is why a job polls, and what would make it stream.
type obstacle struct{ why, try string }

func (o *obstacle) Error() string { return o.why }

// slotName is the name of the slot of a job, and of its publication: on the source's server no other job, and no job of this name
// with another destination, has it.
func slotName(job, source, destination string) string {
	sum := sha256.Sum256([]byte(job + "\x00" + source + "\x00" + destination))
	short := strings.ReplaceAll(nameOf(job), "-", "_")
	return fmt.Sprintf("pgwaltz_pgsync_%s_%x", short[:min(len(short), 24)], sum[:4])
}

// choose decides whether this run reads a slot, and says why. A table that the slot does not tell all of yet is anchored to it, and polled once more: then
// nothing lies between the two.
func (p *pass) choose(ctx context.Context) error {
	if p.once || len(p.tables) == 0 {
		return nil // who copies as a whole now and then would leave a slot that nobody reads
	}
	slot, err := p.prepareSlot(ctx)
	if o := (*obstacle)(nil); errors.As(err, &o) {
		args := []any{"reason", o.why}
		if o.try != "" {
			args = append(args, "try", o.try)
		}
		p.log.Info("polling", args...)
		return nil
	}
	if err != nil {
		return err
	}
	p.slot, p.streams = slot, true
	var anchored []*poll.State
	for _, t := range p.tables {
		if t.fresh || !t.state.Streams(slot.Name, slot.ConfirmedFlushLSN) {
			p.streams = false
		}
		if t.state.Slot == slot.Name && slot.ConfirmedFlushLSN <= t.state.SlotLSN {
			continue
		}
		t.state.Slot, t.state.SlotLSN = slot.Name, slot.ConfirmedFlushLSN
		if t.state.Barrier, err = poll.Barrier(ctx, p.source); err != nil {
			return err
		}
		anchored = append(anchored, t.state)
	}
	if p.streams {
		p.log.Info("streaming", "slot", slot.Name, "from", slot.ConfirmedFlushLSN.String())
	} else {
		p.log.Info("polling", "reason", "what was written before slot "+slot.Name+" tells of it is not all here yet; the next run streams")
	}
	return poll.Save(ctx, p.destination, anchored...)
}

// prepareSlot finds the job's publication and slot, or makes them. An *obstacle says why they are not to be had.
func (p *pass) prepareSlot(ctx context.Context) (*pg.Slot, error) {
	role, err := pg.LoadRole(ctx, p.source, "")
	if err != nil {
		return nil, err
	}
	var why, try []string
	switch {
	case p.from.InRecovery:
		return nil, &obstacle{why: "the source is a standby"}
	case p.from.WALLevel != "logical":
		why, try = append(why, "wal_level of the source is "+p.from.WALLevel), append(try, "alter system set wal_level = logical, and start the server again")
	}
	if !role.Replication && !role.Superuser {
		why, try = append(why, fmt.Sprintf("role %q of the source has no REPLICATION", role.Name)), append(try, "as a superuser, in the source: alter role "+pg.Quote(role.Name)+" replication")
	}
	if len(why) > 0 {
		return nil, &obstacle{strings.Join(why, "; "), strings.Join(try, "; ")}
	}
	for _, t := range p.tables {
		if t.Unfit != "" {
			return nil, &obstacle{why: fmt.Sprintf("table %s %s", t.Rel, t.Unfit)}
		}
	}
	name := p.slotName()
	anew, err := p.preparePublication(ctx, role, name)
	if err != nil {
		return nil, err
	}
	slot, err := pg.LoadSlot(ctx, p.source, name)
	if err != nil {
		return nil, err
	}
	if slot != nil && (anew || slot.Lost()) { // WAL that is older than its publication cannot be decoded
		p.log.Warn("the slot cannot be read any more; it is made again", "slot", name)
		if _, err := p.source.Exec(ctx, `select pg_catalog.pg_drop_replication_slot($1)`, name); err != nil {
			return nil, refusedBy(err, "drop the slot")
		}
		slot = nil
	}
	if slot == nil {
		if err := p.makeSlot(ctx, name); err != nil {
			return nil, err
		}
	}
	for began := time.Now(); ; {
		if slot, err = pg.LoadSlot(ctx, p.source, name); err != nil {
			return nil, err
		}
		switch {
		case slot == nil:
			return nil, &obstacle{why: "slot " + name + " was dropped meanwhile"}
		case !slot.Active:
			return slot, nil
		case time.Since(began) > busyWait:
			return nil, &obstacle{why: fmt.Sprintf("another session (pid %d) reads slot %s", slot.ActivePID, name)}
		}
		if err := pause.For(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func (p *pass) slotName() string {
	return slotName(p.job.Name, fmt.Sprintf("%d/%s", p.from.SystemID, p.from.Database), fmt.Sprintf("%d/%s", p.to.SystemID, p.to.Database))
}

// preparePublication sees to it that all writes of all tables of the job are published. Tables that were not are anchored again. anew: there was no
// publication.
func (p *pass) preparePublication(ctx context.Context, role *pg.Role, name string) (anew bool, err error) {
	pub, err := pg.LoadPublication(ctx, p.source, name)
	if err != nil {
		return false, err
	}
	var missing []string
	for _, t := range p.tables {
		if pub == nil || !pub.Has(t.Rel.Ref()) {
			missing = append(missing, pg.QuoteTable(t.Rel.Schema, t.Rel.Name))
			t.state.Slot = ""
		}
	}
	if pub != nil {
		for i := range pub.Tables {
			if pub.Tables[i].RowFilter != "" || pub.Tables[i].ColumnList {
				return false, &obstacle{"publication " + name + " leaves out rows or columns of " + pub.Tables[i].Name.String(), "drop publication " + pg.Quote(name)}
			}
		}
		if !pub.Insert || !pub.Update || !pub.Delete || !pub.Truncate {
			return false, &obstacle{"publication " + name + " leaves out some kinds of writes", "drop publication " + pg.Quote(name)}
		}
	}
	if len(missing) == 0 {
		return false, nil
	}
	slices.Sort(missing)
	sql := "create publication " + pg.Quote(name) + " for table " + strings.Join(missing, ", ")
	if pub != nil {
		sql = "alter publication " + pg.Quote(name) + " add table " + strings.Join(missing, ", ")
	}
	_, err = p.source.Exec(ctx, sql)
	if pg.Code(err) == "42501" {
		return false, &obstacle{fmt.Sprintf("role %q of the source may not publish the tables", role.Name), "as a superuser, in the source: " + sql}
	}
	return pub == nil, refusedBy(err, "publish the tables")
}

// makeSlot creates the slot. The server waits until transactions that are open now have ended.
func (p *pass) makeSlot(ctx context.Context, name string) error {
	if _, err := p.source.Exec(ctx, fmt.Sprintf("set statement_timeout = %d", slotWait.Milliseconds())); err != nil {
		return fmt.Errorf("make the slot: %w", err)
	}
	_, err := p.source.Exec(ctx, `select pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')`, name)
	if _, serr := p.source.Exec(ctx, "set statement_timeout = 0"); err == nil && serr != nil {
		err = serr
	}
	switch pg.Code(err) {
	case "57014":
		return &obstacle{why: "a transaction of the source is open for long, and a slot can only be made when it ends"}
	case "42710": // made by somebody else at the same time
		return nil
	}
	if err == nil {
		p.log.Info("a slot was made; the source keeps its WAL for this job from now on", "slot", name, "give it up with", "pgsync --config FILE --forget "+p.job.Name)
	}
	return refusedBy(err, "make the slot")
}

// refusedBy makes an obstacle of what the server refuses: the job polls then. What is about the connection stays.
func refusedBy(err error, what string) error {
	if err == nil || pg.Code(err) == "" || pg.Disconnected(err) {
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
	return &obstacle{why: what + ": " + oneLine(err)}
}

// dropSlot gives up the slot of a job, if it is there. A session that has just read it may be on its way out.
func dropSlot(ctx context.Context, conn *pgx.Conn, name string) error {
	for began := time.Now(); ; {
		_, err := conn.Exec(ctx, `select pg_catalog.pg_drop_replication_slot(s.slot_name) from pg_catalog.pg_replication_slots s where s.slot_name = $1`, name)
		if err == nil {
			return nil
		}
		if pg.Code(err) != "55006" || time.Since(began) > busyWait {
			return fmt.Errorf("drop slot %s: %w", name, err)
		}
		if err := pause.For(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}
