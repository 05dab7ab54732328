package apply

import (
	"context"
	"fmt"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// A parked change is one that this region cannot show: a constraint is in the way, or the
// table differs. It is kept in pgwaltz.parked under its key, whole; the newest change of a
// key replaces the older one, because it holds the whole row. Parked changes are tried again
// by themselves, and whenever a newer change of their key comes.

// parkedSet knows which keys have parked changes, so that all others need no look.
type parkedSet struct {
	keys  map[wal.RelationName]map[string]struct{}
	total int64
	stale bool
}

func (p *parkedSet) any(rel wal.RelationName) bool { return len(p.keys[rel]) > 0 }

func (p *parkedSet) has(rel wal.RelationName, key string) bool {
	_, ok := p.keys[rel][key]
	return ok
}

func (p *parkedSet) put(rel wal.RelationName, key string) {
	m := p.keys[rel]
	if m == nil {
		m = map[string]struct{}{}
		p.keys[rel] = m
	}
	if _, ok := m[key]; !ok {
		p.total++
		m[key] = struct{}{}
	}
}

func (p *parkedSet) load(ctx context.Context, q querier, origin string) error {
	p.keys, p.total, p.stale = map[wal.RelationName]map[string]struct{}{}, 0, false
	rows, err := q.Query(ctx, `select schema_name, table_name, key, coalesce(origin = $1, false) from pgwaltz.parked`, origin)
	if err != nil {
		return fmt.Errorf("load parked changes: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var n wal.RelationName
		var key string
		var own bool
		if err := rows.Scan(&n.Schema, &n.Name, &key, &own); err != nil {
			return fmt.Errorf("load parked changes: %w", err)
		}
		p.put(n, key)
		if !own {
			p.total-- // another origin's applier counts it
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("load parked changes: %w", err)
	}
	return nil
}

// parkedEvent is one parked change read back.
type parkedEvent struct {
	id    int64
	stamp wal.Stamp
	tx    *wal.Transaction
}

// image is the parked row in the columns of rel, nil when the table was changed since.
func (p *parkedEvent) image(rel *wal.Relation) wal.Tuple {
	if len(p.tx.Changes) != 1 {
		return nil
	}
	c := &p.tx.Changes[0]
	if c.New == nil || len(c.Relation.Columns) != len(rel.Columns) {
		return nil
	}
	for i := range rel.Columns {
		if rel.Columns[i].Name != c.Relation.Columns[i].Name {
			return nil
		}
	}
	return c.New
}

const parkedColumns = `id, key, generation, version, updated_at, event`

func findParked(ctx context.Context, q querier, rel wal.RelationName, keys []string) (map[string]*parkedEvent, error) {
	return readParked(ctx, q, `select `+parkedColumns+` from pgwaltz.parked
where schema_name = $1 and table_name = $2 and key = any($3::text[])`, rel.Schema, rel.Name, keys)
}

func readParked(ctx context.Context, q querier, sql string, args ...any) (map[string]*parkedEvent, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("find parked changes: %w", err)
	}
	defer rows.Close()
	found := map[string]*parkedEvent{}
	for rows.Next() {
		var key string
		var gen, ver, at int64
		var event []byte
		p := &parkedEvent{}
		if err := rows.Scan(&p.id, &key, &gen, &ver, &at, &event); err != nil {
			return nil, fmt.Errorf("find parked changes: %w", err)
		}
		p.stamp = wal.Stamp{Generation: uint32(gen), Version: ver, UpdatedAt: wal.Micros(at)}
		if p.tx, err = wire.ParseTransaction(event); err != nil {
			return nil, fmt.Errorf("read parked change %d: %w", p.id, err)
		}
		found[key] = p
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("find parked changes: %w", err)
	}
	return found, nil
}

const parkSQL = `insert into pgwaltz.parked as p (origin, schema_name, table_name, key, generation, version, updated_at, op, event, row, sqlstate, message)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
on conflict (schema_name, table_name, key) do update
set origin = excluded.origin, generation = excluded.generation, version = excluded.version, updated_at = excluded.updated_at,
    op = excluded.op, event = excluded.event, row = excluded.row, sqlstate = excluded.sqlstate, message = excluded.message,
    retried_at = pg_catalog.now(), attempts = p.attempts + 1
where (p.generation, p.version, p.updated_at) <= (excluded.generation, excluded.version, excluded.updated_at)`

// park sets one run aside, in the apply transaction.
func (a *Applier) park(ctx context.Context, g *batch.Group, r *batch.Run, key, state, message string) error {
	ch := wal.Change{Op: r.Op, Relation: g.Rel, Stamp: r.Stamp, Base: r.Base}
	if r.Op == wal.Delete {
		ch.Old, ch.OldFull = r.Image, r.Full
	} else {
		ch.New = r.Image
	}
	if err := a.parkEvent(ctx, g, &ch, r.Tx, key, state, message, a.json(g.Rel, r.Image)); err != nil {
		return err
	}
	a.parked.put(g.Rel.Ref(), key)
	a.Stats.Parked.Add(1)
	return nil
}

func (a *Applier) parkEvent(ctx context.Context, g *batch.Group, ch *wal.Change, tx *wal.Transaction, key, state, message string, row []byte) error {
	one := wal.Transaction{XID: tx.XID, Origin: tx.Origin, CommitLSN: tx.CommitLSN, EndLSN: tx.EndLSN, CommitTime: tx.CommitTime, Changes: []wal.Change{*ch}}
	if one.EndLSN == 0 {
		one.EndLSN = tx.CommitLSN + 1 // a part of a giant transaction: its end is not known yet
	}
	event, err := wire.EncodeTransaction(&one)
	if err != nil {
		return fmt.Errorf("park a change of %s: %w", g.Rel, err)
	}
	var image any
	if row != nil {
		image = string(row)
	}
	_, err = a.conn.Exec(ctx, parkSQL, a.cfg.Origin, g.Rel.Schema, g.Rel.Name, key,
		int64(ch.Stamp.Generation), ch.Stamp.Version, int64(ch.Stamp.UpdatedAt), ch.Op.String(), event, image, state, message)
	if err != nil {
		return fmt.Errorf("park a change of %s: %w", g.Rel, err)
	}
	a.cfg.Log.Warn("change parked", "origin", a.cfg.Origin, "relation", g.Rel.String(), "sqlstate", state, "reason", message)
	return nil
}

// Parked is the number of changes set aside.
func (a *Applier) Parked() int64 { return a.parked.total }

// RetryParked tries every parked change of this origin again, each in a transaction of its
// own, and returns how many went in. Call it from the applier's goroutine, between batches.
func (a *Applier) RetryParked(ctx context.Context) (int, error) {
	if a.open {
		return 0, nil
	}
	if a.parked.stale {
		if err := a.parked.load(ctx, a.conn, a.cfg.Origin); err != nil {
			return 0, err
		}
	}
	if a.parked.total == 0 {
		return 0, nil
	}
	a.forgetSchemas()
	n, after := 0, int64(0)
	for {
		found, err := readParked(ctx, a.conn, `select `+parkedColumns+` from pgwaltz.parked
where origin = $1 and id > $2 order by id limit 100`, a.cfg.Origin, after)
		if err != nil || len(found) == 0 {
			return n, a.reload(ctx, n, err)
		}
		for _, p := range found {
			after = max(after, p.id)
		}
		for key, p := range found {
			ok, err := a.retry(ctx, key, p)
			if err != nil {
				return n, err
			}
			if ok {
				n++
			}
		}
	}
}

func (a *Applier) reload(ctx context.Context, n int, err error) error {
	if err != nil || n == 0 {
		return err
	}
	return a.parked.load(ctx, a.conn, a.cfg.Origin)
}

// retry applies one parked change under the checkpoint as it stands.
func (a *Applier) retry(ctx context.Context, key string, p *parkedEvent) (bool, error) {
	b := pipeline{fence: -1}
	if err := a.begin(ctx, &b); err != nil {
		return false, err
	}
	a.saveCheckpoint(&b, a.cp)
	var fx effects
	err := a.run(ctx, &b, nil, nil, nil)
	if err == nil {
		// The change itself must not count as known while it is being decided.
		if _, err = a.conn.Exec(ctx, `delete from pgwaltz.parked where id = $1`, p.id); err == nil {
			a.plain = true
			err = a.set(ctx, &pipeline{fence: -1}, []keyedTx{{p.tx, conflict.Live}}, &fx)
			a.plain = false
		}
	}
	if err == nil {
		err = a.commit(ctx, &fx, a.cp)
	}
	if err == nil {
		a.committed(nil, a.cp, &fx)
		return true, nil
	}
	if rerr := a.rollback(ctx); rerr != nil {
		return false, rerr
	}
	if ctx.Err() != nil {
		return false, err
	}
	a.cfg.Log.Debug("parked change still fails", "origin", a.cfg.Origin, "reason", publicError(err))
	_, err = a.conn.Exec(ctx, `update pgwaltz.parked set attempts = attempts + 1, retried_at = pg_catalog.now() where id = $1`, p.id)
	return false, err
}
