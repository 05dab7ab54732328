package apply

import (
	"context"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// mayMatter reports whether something beside the table is known of the run's key.
func (a *Applier) mayMatter(g *batch.Group, r *batch.Run) bool {
	key := []byte(g.KeyText(r))
	return a.cfg.Index.May(a.ledger(g.Rel), key) || a.cfg.Parked.Has(g.Rel.Ref(), a.encoding.key(string(key)))
}

// unlifted makes sure that nothing is known of rows that the fast path has changed or deleted. A statement may have waited for another applier, which put
// the row into a later generation meanwhile: the stamp that it found there is another one then than the guard takes it for. That applier has
// made its entry known, and committed, before the row could be written here.
func (a *Applier) unlifted(ctx context.Context, over []putRow) error {
	ask := map[wal.RelationName][]string{}
	for _, p := range over {
		rel := a.ledger(p.g.Rel)
		if !a.cfg.Index.Any(rel) {
			continue
		}
		if key := p.g.KeyText(&p.g.Runs[p.i]); a.cfg.Index.May(rel, []byte(key)) {
			ask[rel] = append(ask[rel], key)
		}
	}
	for rel, keys := range ask {
		found, err := tombstone.Read(ctx, a.conn, rel, keys)
		if err != nil {
			return side(err)
		}
		if len(found) > 0 {
			return errRace
		}
	}
	return nil
}

// guardOf picks the guard under which an update is a fast-forward by the rules of
// conflict.Resolve.
func (a *Applier) guardOf(r *batch.Run, t *target, order conflict.Order) (statement.Guard, bool) {
	if r.Base.Known {
		b := r.Base.Stamp
		if order == conflict.VersionFirst && b.Compare(r.Stamp) >= 0 {
			return 0, false
		}
		if order != conflict.VersionFirst && b.UpdatedAt >= r.Stamp.UpdatedAt {
			return 0, false
		}
		if t.shape.Version != "" && b.Version == wal.NullVersion {
			return 0, false // NULL is not found by an equality
		}
		if t.shape.UpdatedAt != "" && !ordinary(b.UpdatedAt) {
			return 0, false
		}
		return statement.GuardBase, true
	}
	if order != conflict.VersionFirst {
		return 0, false
	}
	switch {
	case t.shape.Version != "":
		return statement.GuardVersion, r.Stamp.Version != wal.NullVersion
	case t.shape.UpdatedAt != "":
		return statement.GuardTime, r.Stamp.UpdatedAt != wal.MinMicros && r.Stamp.UpdatedAt != conflict.Beyond
	}
	return 0, false
}

// ordinary reports whether a time stands for itself alone.
func ordinary(t wal.Micros) bool {
	return t != wal.MinMicros && t != wal.MaxMicros && t != conflict.Beyond
}

func (a *Applier) deleteGuardOf(r *batch.Run, t *target) (statement.Guard, bool) {
	if r.Base.Known {
		b := r.Base.Stamp
		if (t.shape.Version != "" && b.Version == wal.NullVersion) ||
			(t.shape.UpdatedAt != "" && !ordinary(b.UpdatedAt)) {
			return 0, false
		}
		return statement.GuardBase, true
	}
	if t.shape.UpdatedAt == "" {
		return 0, false
	}
	return statement.GuardTime, true
}

// guardArgs makes the guard's parameters.
func guardArgs(gd statement.Guard, t *target, isDelete bool) func(*Applier, *batch.Group, []int) [][]byte {
	return func(a *Applier, g *batch.Group, runs []int) [][]byte {
		ints := func(f func(*batch.Run) int64) []byte {
			arr := a.scratch(wal.OIDInt8)
			for _, i := range runs {
				arr.int8(f(&g.Runs[i]))
			}
			return arr.param()
		}
		times := func(f func(*batch.Run) wal.Micros) []byte {
			arr := a.scratch(wal.OIDTimestamptz)
			for _, i := range runs {
				arr.micros(f(&g.Runs[i]))
			}
			return arr.param()
		}
		switch gd {
		case statement.GuardBase:
			var args [][]byte
			if t.shape.Version != "" {
				args = append(args, ints(func(r *batch.Run) int64 { return r.Base.Stamp.Version }))
			}
			if t.shape.UpdatedAt != "" {
				args = append(args, times(func(r *batch.Run) wal.Micros { return r.Base.Stamp.UpdatedAt }))
			}
			return args
		case statement.GuardVersion:
			return [][]byte{ints(func(r *batch.Run) int64 { return r.Stamp.Version })}
		case statement.GuardTime:
			if isDelete {
				return [][]byte{times(func(r *batch.Run) wal.Micros { return r.Tx.CommitTime })}
			}
			return [][]byte{times(func(r *batch.Run) wal.Micros { return r.Stamp.UpdatedAt })}
		}
		return nil
	}
}

// stampFormats asks for binary stamps, but for those that come as text.
func stampFormats(s statement.Shape) []int16 {
	var f []int16
	add := func(name string, text bool) {
		switch {
		case name == "":
		case text:
			f = append(f, 0)
		default:
			f = append(f, 1)
		}
	}
	add(s.Version, s.VersionText)
	add(s.UpdatedAt, s.TimeText)
	return f
}
