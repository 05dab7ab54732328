package sink

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/wal"
)

func errorsAs[T error](err error, target *T) bool { return errors.As(err, target) }

// textImage returns the run's image in text form. Values that travel in binary are turned
// into text by PostgreSQL itself, so that contents compare equal however they came.
func (a *Applier) textImage(ctx context.Context, g *group, t *target, i int) (wal.Tuple, error) {
	r := &g.runs[i]
	if !g.binary {
		return r.image, nil
	}
	var cols []int
	for c := range r.image {
		if r.image[c].Kind == wal.Binary {
			cols = append(cols, c)
		}
	}
	if len(cols) == 0 {
		return r.image, nil
	}
	sql := "select "
	args := make([][]byte, len(cols))
	for n, c := range cols {
		if n > 0 {
			sql += ", "
		}
		sql += fmt.Sprintf("$%d::%s", n+1, a.typeOf(t, g.rel, c))
		args[n] = r.image[c].Bytes
	}
	out := make(wal.Tuple, len(r.image))
	copy(out, r.image)
	// The parameter's type follows from the cast: the same built-in type on both sides.
	if err := a.query(ctx, sql, args, make([]int16, len(cols)), func(v [][]byte) {
		for n := range v {
			out[cols[n]] = clone(v[n])
		}
	}); err != nil {
		return nil, fmt.Errorf("convert image of a row of %s: %w", g.rel, err)
	}
	return out, nil
}

func (a *Applier) typeOf(t *target, rel *wal.Relation, c int) string {
	if t.params[c].typ != "" {
		return t.params[c].typ
	}
	return "text"
}

// record describes a decided conflict for the audit log.
func (a *Applier) record(g *group, t *target, v *verdict) audit.Record {
	r := &g.runs[v.i]
	remote := v.event.Side()
	rec := a.plainRecord(g.rel, v.Type, v.Reason, r.tx, remote)
	rec.Key = a.imager.Key(nil, g.rel, keyImage(g, r), g.key)
	rec.Verdict = v.Verdict.String()
	rec.EventID = conflict.EventID(g.rel.Ref(), v.known.key, remote, v.side)
	if v.side.Known {
		rec.LocalStamp = stampText(v.side.Stamp)
	}
	if r.base.Known && !r.base.HasDigest {
		rec.BaseStamp = stampText(r.base.Stamp)
	}
	rec.LocalRow = a.json(g.rel, v.known.row)
	if r.op != wal.Delete || r.full {
		rec.RemoteRow = a.json(g.rel, fill(r.image, v.known.row))
	}
	local, from := a.cfg.Region, a.cfg.Origin
	if a.cfg.Self {
		local = a.cfg.Peer // what stands here against our own change came from there
	}
	rec.Winner, rec.Loser = v.Decision.Winner(local, from)
	return rec
}

// plainRecord is a record without images: of what is not applied at all.
func (a *Applier) plainRecord(rel *wal.Relation, typ conflict.Type, reason conflict.Reason, tx *wal.Transaction, remote conflict.Side) audit.Record {
	return audit.Record{
		EventID: conflict.EventID(rel.Ref(), tx.CommitLSN.String(), remote, conflict.Side{}),
		Region:  a.cfg.Region, Relation: rel.Ref(), Key: []byte("{}"),
		Type: string(typ), Verdict: conflict.Keep.String(), Reason: string(reason),
		Winner: a.cfg.Region, Loser: a.cfg.Origin, RemoteStamp: stampText(remote.Stamp),
		Origin: a.cfg.Origin, OriginXID: tx.XID, CommitLSN: tx.CommitLSN, CommitTime: tx.CommitTime,
	}
}

// parkedRecord describes a change that could not be applied and was set aside.
func (a *Applier) parkedRecord(g *group, r *run, typ conflict.Type, state string) audit.Record {
	remote := conflict.Side{Known: true, Alive: r.op != wal.Delete, Stamp: r.stamp}
	rec := a.plainRecord(g.rel, typ, conflict.Reason("sqlstate "+state), r.tx, remote)
	rec.EventID = conflict.EventID(g.rel.Ref(), g.keyText(r), remote, conflict.Side{})
	rec.Key = a.imager.Key(nil, g.rel, keyImage(g, r), g.key)
	rec.Verdict, rec.Winner, rec.Loser = conflict.Park.String(), "", ""
	if r.op != wal.Delete {
		rec.RemoteRow = a.json(g.rel, r.image)
	}
	return rec
}

// keyImage is a tuple that holds the key and nothing else.
func keyImage(g *group, r *run) wal.Tuple {
	t := make(wal.Tuple, len(g.rel.Columns))
	for i := range t {
		t[i].Kind = wal.Null
	}
	for n, c := range g.key {
		t[c] = r.key[n]
	}
	return t
}

func (a *Applier) json(rel *wal.Relation, row wal.Tuple) []byte {
	if row == nil {
		return nil
	}
	return a.imager.Row(nil, rel, row)
}

// stampText prints a stamp for the audit log: generation, version, time.
func stampText(s wal.Stamp) string {
	version := strconv.FormatInt(s.Version, 10)
	switch s.Version {
	case wal.NullVersion:
		version = "null"
	case wal.MaxVersion:
		version = "max"
	}
	return fmt.Sprintf("g%d v%s %s", s.Generation, version, s.UpdatedAt)
}

// pushback makes the local entry that beat the event into an event of its own, so that the
// region that lost is told.
func (a *Applier) pushback(g *group, t *target, v *verdict) *wal.Transaction {
	ch := wal.Change{Op: wal.Update, Relation: g.rel, New: v.known.row, Stamp: v.side.Stamp}
	if !v.side.Alive {
		ch.Op, ch.New = wal.Delete, nil
		ch.Old = keyImage(g, &g.runs[v.i])
	}
	return &wal.Transaction{CommitTime: g.runs[v.i].tx.CommitTime, Changes: []wal.Change{ch}}
}
