package sidecar

import (
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/source/names"
)

// A term begins when the session that held the lead before is gone. Another sidecar may have been at work since,
// and the server may have crashed, or have been restored from an older state, while this process lived on. So a
// term begins with nothing but what the database, the stream and the peers say, as a process does. Counters stay, and
// the changes that are suspected of ending sessions: a crash of the server ends the term, too.

// forget forgets what this process knows from terms before. No pipe runs.
func (s *Sidecar) forget() {
	for _, d := range []*db{s.db, s.catalog, s.ownDB} {
		d.close() // they count as a former leader's; the next use opens another one
	}
	s.out.forget()
	for _, in := range s.in {
		in.forget()
	}
	s.members.Forget()
	s.lives.forget()
	s.own.SetLedgers(tombstone.Ledgers{})
	s.noted.set(names.Noted{})
	s.strays, s.straysDue = nil, time.Time{}
	s.named, s.followDue, s.columnsDue = time.Time{}, time.Time{}, time.Time{}
	s.overdue.Store(false)
	s.rules.forget()
	s.met, s.former, s.moved, s.apart = metNames{}, formerNames{}, displaced{}, apart{}
}

func (o *outboundState) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.slot, o.publisher, o.pipe, o.row, o.reopen, o.live = nil, nil, nil, nil, nil, false
	o.incarnation, o.ownRead, o.ownReadOf, o.ownDone, o.ownDoneOf = 0, 0, 0, 0, 0
	o.loose, o.reopened, o.knew = 0, 0, nil
	o.start, o.begunAt, o.failedAt = 0, 0, 0
	o.acks, o.answered = map[string]peerAck{}, map[string]uint32{}
	o.anew, o.prove, o.extra, o.stamper = false, false, nil, nil
	o.gap = nil
	o.chains = checkpoint.Chains{}
	for _, a := range []interface{ Store(uint64) }{&o.frame, &o.content, &o.durable, &o.synced, &o.confirmed, &o.atRisk} {
		a.Store(0)
	}
	o.riskKnown.Store(false)
	o.needs.Store(needUnknown)
}

func (in *inboundState) forget() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.cp, in.acked, in.sent, in.ackedSent = checkpoint.Checkpoint{}, checkpoint.Checkpoint{}, 0, 0
	in.read, in.readOf, in.durable = 0, 0, false
	select {
	case <-in.fresh:
	default:
	}
}
