package sidecar

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/checkpoint/streamstore"
	"github.com/pgwaltz/pgwaltz/sink/publish"
	"github.com/pgwaltz/pgwaltz/wal"
)

// purge removes from the stream what every peer has durably applied, and the self-merge has
// seen. A stream that is full gives more, so that it never waits for itself.
func (s *Sidecar) purge(ctx context.Context) {
	o := &s.out
	o.mu.Lock()
	pub := o.publisher
	o.mu.Unlock()
	if pub == nil {
		return
	}
	inc, frame := s.ackedFrame()
	settled := uint64(0) // by all peers, and by the self-merge
	if frame > 0 {
		if merged, err := s.mergedFrame(ctx, inc); err == nil {
			settled = min(frame, merged)
			s.tighten(settled)
			s.purgeTo(ctx, pub, o.seqs.upTo(settled))
		}
	}
	if !pub.State().Full {
		return
	}
	if s.outdatedCovered() {
		// A peer or the self-merge may have committed nothing of the present incarnation yet, because it
		// begins with a transaction that needs the room. What lies in the stream of that transaction stays.
		s.purgeTo(ctx, pub, o.outdatedUpTo(inc, pub.State().Seq))
	}
	s.purgeOpen(ctx, pub, inc, settled)
}

func (s *Sidecar) purgeTo(ctx context.Context, pub *publish.Publisher, seq uint64) {
	if seq == 0 {
		return
	}
	if _, err := pub.Purge(ctx, seq); err != nil && ctx.Err() == nil {
		s.log.Debug("purge stream", "reason", err.Error())
	}
}

// purgeOpen removes the parts of one transaction that is larger than the stream, as far as
// every peer and the self-merge have applied them, though nobody can commit yet. Who starts
// again before the end misses them, and asks for a rewind: the slot holds the transaction until
// every peer has committed it, whatever the budget of retained WAL (confirm).
// settled is the frame that all have behind them: of what lies below, nothing is open.
func (s *Sidecar) purgeOpen(ctx context.Context, pub *publish.Publisher, inc uint32, settled uint64) {
	o := &s.out
	o.mu.Lock()
	peers, own := s.readInParts(inc)
	read := min(peers, own)
	loosens := read != ^uint64(0) && read > max(o.loose, settled)
	o.mu.Unlock()
	if !loosens {
		return
	}
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return streamstore.NoteLoose(ctx, c, s.cfg.Region, inc, read)
	})
	if err != nil {
		s.log.Debug("purge stream", "reason", publicMessage(err))
		return
	}
	o.mu.Lock()
	first := o.loose == 0
	o.loose = read
	o.mu.Unlock()
	if first {
		s.log.Info("a transaction is larger than the stream; its parts leave it as the peers apply them", "incarnation", inc, "frame", read)
	}
	s.purgeTo(ctx, pub, o.seqs.upTo(read))
}

// readInParts is how far every peer, and the self-merge, have applied a transaction in parts. Without
// peers the first is the highest number. The caller holds out.mu.
func (s *Sidecar) readInParts(inc uint32) (peers, own uint64) {
	peers = ^uint64(0)
	s.counting(func(_ string, a peerAck, counts bool) {
		peers = min(peers, a.inParts(s.epoch, inc, counts))
	})
	if s.out.ownReadOf != uint64(inc) {
		return peers, 0
	}
	return peers, s.out.ownRead
}

// inParts is the frame of an incarnation up to which a peer has applied this region's stream, committed or not;
// counts tells whether what it has committed counts. What it has committed may lie in an earlier incarnation.
func (a *peerAck) inParts(epoch wal.Epoch, incarnation uint32, counts bool) uint64 {
	frame := uint64(0)
	if counts {
		frame = a.Frame // a peer that has committed the transaction already is in no part
	}
	if a.ReadIncarnation == incarnation && a.Epoch.SameWAL(epoch) {
		frame = max(frame, a.Read)
	}
	return frame
}

// streamRoom is the room of the stream that a run publishes into.
type streamRoom struct {
	s      *Sidecar
	stream *publish.Publisher
}

// AwaitsMerge reports whether the stream is full of what all peers have and the self-merge, which is
// done up to merged, has not: nothing else makes room then.
func (r streamRoom) AwaitsMerge(merged wal.LSN) bool {
	return r.stream.State().Full && r.s.awaitsMerge(merged)
}

// awaitsMerge reports whether all peers have something of the stream that the self-merge has not.
func (s *Sidecar) awaitsMerge(merged wal.LSN) bool {
	if s.passedByAll() > merged {
		return true
	}
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	peers, own := s.readInParts(s.out.incarnation)
	if s.out.ownDoneOf == s.out.incarnation {
		own = max(own, s.out.ownDone)
	}
	return peers != ^uint64(0) && peers > own
}

// tighten ends what purgeOpen began, once every peer and the self-merge have committed it.
func (s *Sidecar) tighten(frame uint64) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if frame >= s.out.loose {
		s.out.loose = 0
	}
}

// outdatedCovered reports whether the frames of earlier incarnations are of no use any more: all
// that any peer may miss comes again in the present one, or they are of a history that ended
// with a resync.
func (s *Sidecar) outdatedCovered() bool {
	o := &s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.reopened == o.incarnation {
		return true
	}
	all := s.own.Safe() >= o.begunAt
	s.counting(func(_ string, a peerAck, _ bool) {
		all = all && a.Epoch.SameWAL(s.epoch) && a.Incarnation >= o.reopened && a.EndLSN >= o.begunAt
	})
	return all
}

// outdatedUpTo is the sequence up to which only frames of incarnations before the present one lie; 0 where that is not
// known: another process may have stored the first frame of it. newest was the newest frame that is stored, before this
// call.
func (o *outboundState) outdatedUpTo(incarnation uint32, newest uint64) uint64 {
	before, known := o.seqs.before(incarnation)
	if !known && o.frame.Load() == 0 {
		return newest // nothing of the present one is stored
	}
	return before
}

// selfRead notes how far the self-merge has applied a transaction in parts.
func (o *outboundState) selfRead(incarnation uint32, frame uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ownReadOf, o.ownRead = uint64(incarnation), frame
}

// selfDone notes the frame behind the self-merge's newest commit, which may not be on disk.
func (o *outboundState) selfDone(incarnation uint32, frame uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ownDoneOf, o.ownDone = incarnation, frame
}
