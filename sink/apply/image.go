package apply

import (
	"context"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
)

// textImage returns the run's image in text form. Values that travel in binary are turned
// into text by PostgreSQL itself, so that contents compare equal however they came.
func (a *Applier) textImage(ctx context.Context, g *batch.Group, t *target, i int) (wal.Tuple, error) {
	r := &g.Runs[i]
	if !g.Binary {
		return r.Image, nil
	}
	var cols []int
	for c := range r.Image {
		if r.Image[c].Kind == wal.Binary {
			cols = append(cols, c)
		}
	}
	if len(cols) == 0 {
		return r.Image, nil
	}
	sql := "select "
	args := make([][]byte, len(cols))
	for n, c := range cols {
		if n > 0 {
			sql += ", "
		}
		sql += fmt.Sprintf("$%d::%s", n+1, a.typeOf(t, g.Rel, c))
		args[n] = r.Image[c].Bytes
	}
	out := make(wal.Tuple, len(r.Image))
	copy(out, r.Image)
	// The parameter's type follows from the cast: the same built-in type on both sides.
	if err := a.query(ctx, sql, args, make([]int16, len(cols)), func(v [][]byte) {
		for n := range v {
			out[cols[n]] = clone(v[n])
		}
	}); err != nil {
		return nil, fmt.Errorf("convert image of a row of %s: %w", g.Rel, err)
	}
	return out, nil
}

func (a *Applier) typeOf(t *target, rel *wal.Relation, c int) string {
	if t.params[c].Type != "" {
		return t.params[c].Type
	}
	return "text"
}

// record describes a decided conflict for the audit log; image is the event's, in text form.
func (a *Applier) record(g *batch.Group, v *verdict, image wal.Tuple) (audit.Record, error) {
	r := &g.Runs[v.i]
	if r.Op != wal.Delete && v.event.Content == nil {
		v.event.Content, _ = conflict.Content(g.Rel, image)
	}
	remote := v.event.Side()
	rec := a.plainRecord(g.Rel, v.Type, v.Reason, r.Tx, remote)
	rec.Key = a.keyJSON(g.Rel, keyImage(g, r), g.Key)
	rec.Verdict = v.Verdict.String()
	rec.EventID = conflict.EventID(g.Rel.Ref(), v.known.key, remote, v.side)
	if v.side.Known {
		rec.LocalStamp = stampText(v.side.Stamp)
	}
	if r.Base.Known && (!r.Base.HasDigest || r.Base.Stamp != (wal.Stamp{})) {
		rec.BaseStamp = stampText(r.Base.Stamp)
	}
	rec.LocalRow = a.json(g.Rel, v.known.row)
	if r.Op != wal.Delete || r.Full {
		rec.RemoteRow = a.json(g.Rel, batch.Fill(image, v.known.row))
	}
	local, from := a.cfg.Region, a.cfg.Origin
	if a.cfg.Self {
		local = a.cfg.Peer // what stands here against our own change came from there
	}
	rec.Winner, rec.Loser = v.Decision.Winner(local, from)
	return rec, nil
}

// skewRecord reports a stamp that lies further ahead than clocks may.
func (a *Applier) skewRecord(g *batch.Group, r *batch.Run, key string, side conflict.Side) audit.Record {
	rec := a.plainRecord(g.Rel, conflict.ClockSkew, "ahead of max_clock_skew", r.Tx, side)
	// The contents do not matter: one report for one stamp of one key. A delete of what is not here,
	// with the same stamp, is another event.
	rec.EventID = conflict.EventID(g.Rel.Ref(), "skew "+key, conflict.Side{Known: true, Stamp: side.Stamp}, conflict.Side{})
	rec.Key = a.keyJSON(g.Rel, keyImage(g, r), g.Key)
	rec.Verdict = conflict.Apply.String()
	rec.Winner, rec.Loser = a.cfg.Origin, ""
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
func (a *Applier) parkedRecord(g *batch.Group, r *batch.Run, typ conflict.Type, state string) audit.Record {
	remote := conflict.Side{Known: true, Alive: r.Op != wal.Delete, Stamp: r.Stamp}
	rec := a.plainRecord(g.Rel, typ, conflict.Reason("sqlstate "+state), r.Tx, remote)
	rec.EventID = conflict.EventID(g.Rel.Ref(), g.KeyText(r), remote, conflict.Side{})
	rec.Key = a.keyJSON(g.Rel, keyImage(g, r), g.Key)
	rec.Verdict, rec.Winner, rec.Loser = conflict.Park.String(), "", ""
	if r.Op != wal.Delete {
		rec.RemoteRow = a.json(g.Rel, r.Image)
	}
	return rec
}

// keyImage is a tuple that holds the key and nothing else.
func keyImage(g *batch.Group, r *batch.Run) wal.Tuple {
	t := make(wal.Tuple, len(g.Rel.Columns))
	for i := range t {
		t[i].Kind = wal.Null
	}
	for n, c := range g.Key {
		t[c] = r.Key[n]
	}
	return t
}

func (a *Applier) json(rel *wal.Relation, row wal.Tuple) []byte {
	if row == nil {
		return nil
	}
	return a.storable(a.imager.Row(nil, rel, row))
}

// keyJSON is the key of a row for the audit log.
func (a *Applier) keyJSON(rel *wal.Relation, row wal.Tuple, key []int) []byte {
	return a.storable(a.imager.Key(nil, rel, row, key))
}

// storable replaces what the server cannot hold.
func (a *Applier) storable(b []byte) []byte {
	if isASCII(b) || (a.encoding == utf8Server && utf8.Valid(b)) {
		return b
	}
	return []byte(a.encoding.text(string(b)))
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
