package sim

import (
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// extra is a packet that does not come from the log.
type extra struct {
	kind   wire.Kind
	tx     *wal.Transaction
	after  wal.LSN
	answer *answer
}

// extras sends the packets whose position has come.
func (o *outbound) extras() {
	if o.inParts {
		return
	}
	s, kept := o.s, o.waiting[:0]
	for _, x := range o.waiting {
		if x.answer != nil {
			if s.own.decoded < s.r.db.insert || s.own.later(x.answer.key, part{}) {
				kept = append(kept, x) // what is there may not have its stamp yet
				continue
			}
			x.tx = s.r.db.entryOf(x.answer.key)
		}
		if x.tx == nil {
			s.r.db.drop(x.answer)
			continue
		}
		if x.after > o.decoded {
			kept = append(kept, x)
			continue
		}
		o.flush()
		s.w.must(o.enc.Add(x.tx))
		o.cut(x.kind, 0)
		if x.answer != nil {
			at := o.enc.Position()
			x.answer.incarnation, x.answer.number = at.Incarnation, at.Number
		}
	}
	o.waiting = kept
}
