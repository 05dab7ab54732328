package sim

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A restore brings a server back to an earlier point: as a copy of its files, which goes on in
// the same timeline and gives the same positions out again, or by promotion, in a new one. A snapshot
// of the whole machine brings the stream back with it.
// What was committed behind that point is lost. Nobody can have it back from the slot; so the
// region, or its peers, must say `gap`, and after `pgwaltz resync` all are equal again.
// Deletes that a restore has lost come back from the tombstones of the peers.

// backup is what a copy of the files holds.
type backup struct {
	keys        map[rowKey]entry
	clock       map[wal.LSN]wal.Micros
	cps         map[string]checkpoint.Checkpoint
	wal         []*walTx
	insert      wal.LSN
	confirmed   wal.LSN
	incarnation uint32
	stored      checkpoint.Stored
	audit       []record
	rows        map[string]int
	local       uint64
	given       map[changeAt]given // what is stamped later may rest on what a restore loses
	stream      *image             // a snapshot of the whole machine; else nil
}

// copyFiles takes a backup of everything that is on disk.
func (d *database) copyFiles() *backup {
	d.revealAll() // recovery makes every commit visible
	d.flush()
	d.saved = d.confirmed
	return &backup{
		keys: maps.Clone(d.keys), clock: maps.Clone(d.clock), cps: maps.Clone(d.cps), wal: slices.Clone(d.wal), insert: d.insert, confirmed: d.confirmed,
		incarnation: d.incarnation, stored: d.stored, audit: slices.Clone(d.audit), rows: maps.Clone(d.rows), local: d.local,
		given: maps.Clone(d.given),
	}
}

// restore puts a backup in the place of the database.
func (d *database) restore(b *backup, promoted bool) {
	d.crash()
	d.keys, d.cps, d.onDisk = maps.Clone(b.keys), maps.Clone(b.cps), maps.Clone(b.cps)
	d.clock = maps.Clone(b.clock)
	d.wal, d.flushed, d.insert = slices.Clone(b.wal), len(b.wal), b.insert
	d.confirmed, d.saved = b.confirmed, b.confirmed
	d.incarnation, d.stored = b.incarnation, b.stored
	d.audit, d.rows, d.local = slices.Clone(b.audit), maps.Clone(b.rows), b.local
	d.given = maps.Clone(b.given)
	if promoted {
		d.epoch.Timeline++
	}
	d.xid += 3 // the ids that were running then are skipped
}

// planRestore draws a restore of one region, if there is one in this run.
func (w *World) planRestore(micros int64) {
	if !w.cfg.Restore {
		return
	}
	r := w.regions[w.rng.IntN(len(w.regions))]
	promoted := w.rng.IntN(3) == 0
	machine := w.rng.IntN(3) == 0
	at := w.rng.Int64N(micros)
	w.after(time.Duration(at)*time.Microsecond, func() {
		b := r.db.copyFiles()
		if machine {
			b.stream = r.stream.image()
		}
		w.after(w.span(0, micros-at), func() {
			w.note(r.id, "restored", uint64(r.db.insert), uint64(b.insert))
			w.Stats.Restores++
			w.restored, w.restoredAt = true, time.Now()
			r.db.restore(b, promoted)
			if b.stream != nil {
				r.stream.restore(b.stream)
			}
			if w.rng.IntN(2) == 0 {
				r.side.crash()
			} else {
				r.side.disconnected()
			}
			w.after(time.Second, w.operate)
		})
	})
}

// operate is the operator: where a region says `gap`, it types `pgwaltz resync` there, and then
// at every other region, once that has applied what the first one sends since.
func (w *World) operate() {
	for _, r := range w.regions {
		if r.db.stored.Gap && time.Since(r.db.gapAt) > time.Second && (r.db.resynced.IsZero() || time.Since(r.db.resynced) > 3*time.Second) {
			r.side.resync()
			for _, o := range w.regions {
				if o == r {
					continue
				}
				w.typing++
				var second func()
				second = func() {
					if in := o.side.in; !o.side.up || len(in) == 0 || r.db.stored.Gap || in[r.id].app.cp.Incarnation < r.db.stored.Reopened {
						w.after(500*time.Millisecond, second)
						return
					}
					w.typing--
					o.side.resync()
				}
				w.after(2*time.Second, second)
			}
		}
	}
	w.after(700*time.Millisecond, w.operate)
}

// resync is the command: it notes the request, and the pipe opens anew and copies.
func (s *sidecar) resync() {
	d := s.r.db
	s.w.note(s.r.id, "resync", 0, 0)
	d.stored.Resync, d.resynced, d.copies = true, time.Now(), true
	if s.up {
		s.reopen()
	}
}

// noteGap stores that there is a gap.
func (d *database) noteGap(history bool, why string) {
	if !d.stored.Gap {
		d.gapAt = time.Now()
	}
	d.stored.Gap = true
	if history {
		d.stored.History, d.stored.Why = true, why
	}
	d.w.note(d.r.id, "gap", uint64(d.confirmed), 0)
	d.w.say(d.r.id, "gap: %s", why)
}

// reopen begins an incarnation that admits a gap: what the self-merge read of the stream before
// belongs to a history that may not be this database's.
func (d *database) reopen(incarnation uint32) {
	d.stored.Reopened, d.stored.Gap, d.stored.History, d.stored.Resync, d.stored.Why = incarnation, false, false, false, ""
	d.stored.Passed = 0
	d.copies = true
	cp := d.cps[d.r.name]
	cp.Origin = d.r.name
	cp.Incarnation, cp.FrameNo, cp.EndLSN, cp.Seen, cp.Mark = incarnation-1, math.MaxInt64, 0, 0, wal.Mark{}
	cp.Chain, cp.StreamSeq = [32]byte{}, 0
	d.cps[d.r.name], d.onDisk[d.r.name] = cp, cp
}

// otherHistory is what a pipe does when the WAL is not the one that was published.
func (s *sidecar) otherHistory(err error) {
	if !s.w.restored {
		s.w.fail("%v", err)
	}
	s.r.db.noteGap(true, err.Error())
	s.reopen()
	panic(stop{})
}
