package sim

import (
	"time"

	"github.com/pgwaltz/pgwaltz/replicator/framing"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// answers sends the entries that beat remote changes, once their stamps are known.
func (o *outbound) answers() {
	s := o.s
	for len(o.waiting) > 0 && !o.framer.InParts() && o.framer.Held() == 0 {
		a := o.waiting[0]
		if s.own.decoded < s.r.db.insert || s.own.later(a.key, part{}) {
			return
		}
		o.waiting = o.waiting[1:]
		tx := s.r.db.entryOf(a.key)
		if tx == nil {
			s.r.db.drop(a)
			continue
		}
		o.framer.Hold(framing.Extra{Kind: wire.Repair, Transactions: []*wal.Transaction{tx}, Done: func(h wire.Header) {
			a.incarnation, a.number = h.Incarnation, h.Number
		}})
		_, err := o.framer.Next(time.Now(), 1)
		s.w.must(err)
	}
}
