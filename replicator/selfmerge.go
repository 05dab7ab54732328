package replicator

import (
	"context"
	"sync"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// SelfMerge lets only those packets of the own stream through that have something to merge:
// deletes, later generations, tables without stamp columns, inserts of keys that something is
// known of, truncates. The checkpoint behind the others is saved when the applier is idle (Idle).
type SelfMerge struct {
	policy apply.Policy
	local  *LocalWAL
	mu     sync.Mutex
	sent   int                 // packets let through
	last   *subscribe.Delivery // the newest packet left out, if nothing went through behind it
	kept   chan struct{}       // one token: there is something for Idle
}

// Kept has a token when there may be something for Idle.
func (m *SelfMerge) Kept() <-chan struct{} { return m.kept }

func (m *SelfMerge) keep() {
	select {
	case m.kept <- struct{}{}:
	default:
	}
}

// Idle returns the position behind packets that had nothing to merge, once everything before
// it is applied.
func (m *SelfMerge) Idle(applied int) *subscribe.Delivery {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		return nil
	}
	if m.sent != applied { // not yet
		m.keep()
		return nil
	}
	d := m.last
	m.last = nil
	return d
}

// Restart forgets what went through: the pipe begins again at the checkpoint.
func (m *SelfMerge) Restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent, m.last = 0, nil
}

// Filter hands d on to deliver, or keeps its position for Idle.
func (m *SelfMerge) Filter(ctx context.Context, d subscribe.Delivery, deliver func(context.Context, subscribe.Delivery) error) error {
	some := d.NewIncarnation // what opens one may lead back, and has to be seen
	out := *d.Packet
	if d.Header.Kind == wire.Data {
		out.Transactions = make([]*wal.Transaction, 0, len(d.Packet.Transactions))
		for _, tx := range d.Packet.Transactions {
			c := *tx
			c.Changes, c.Notices = m.pick(tx), nil
			if len(c.Changes) > 0 {
				some = true
			}
			// Parts of a giant transaction stay, so that its end is seen.
			if len(c.Changes) > 0 || c.More || c.Part > 0 {
				some = true
				out.Transactions = append(out.Transactions, &c)
			}
		}
	} else {
		out.Transactions = nil
	}
	d.Packet = &out
	m.mu.Lock()
	if !some {
		m.last = &d
		m.keep()
		m.mu.Unlock()
		return nil
	}
	before := m.last
	m.last = nil
	if !begins(out.Transactions) {
		before = nil // its own position says so too, and is saved as soon
	}
	m.sent++
	if before != nil {
		m.sent++
	}
	m.mu.Unlock()
	if before != nil {
		if err := deliver(ctx, *before); err != nil {
			return err
		}
	}
	return deliver(ctx, d)
}

// begins reports whether a packet holds the first part of a giant transaction. What lies before it
// has to be said to be merged at once: the end of the transaction may be a long way off, and may not
// be stamped before that is known.
func begins(txs []*wal.Transaction) bool {
	for _, tx := range txs {
		if tx.More && tx.Part == 0 {
			return true
		}
	}
	return false
}

// pick returns the changes of a transaction that have something to merge. Behind an insert that goes
// through, the other changes of its key go with it: without them a delete would not continue the
// insert, and the insert by itself is a row that nobody ever saw. The others are gone from tx: giant
// transactions are not copied.
func (m *SelfMerge) pick(tx *wal.Transaction) []wal.Change {
	picked := tx.Changes[:0]
	var inserted map[tombstone.Ref]bool
	for i := range tx.Changes {
		ch := &tx.Changes[i]
		needs := m.needs(tx, ch)
		if needs && ch.Op == wal.Insert {
			if inserted == nil {
				inserted = map[tombstone.Ref]bool{}
			}
			inserted[m.refOf(ch)] = true
		}
		if needs || len(inserted) > 0 && follows(ch) && inserted[m.refOf(ch)] {
			picked = append(picked, *ch)
		}
	}
	clear(tx.Changes[len(picked):])
	return picked
}

// follows reports whether a change may continue an insert of its key.
func follows(ch *wal.Change) bool {
	return ch.Op != wal.Truncate && !ch.Repair && ch.Relation.KeyColumns() != nil
}

// refOf is the key of a change; of a table whose keys only the server can tell apart, the table.
func (m *SelfMerge) refOf(ch *wal.Change) tombstone.Ref {
	ref := tombstone.Ref{Relation: m.local.Own(ch.Relation)}
	if !ch.Relation.Asks() {
		ref.Key = string(ch.AppendKey(nil))
	}
	return ref
}

func (m *SelfMerge) needs(tx *wal.Transaction, ch *wal.Change) bool {
	if ch.Op == wal.Truncate {
		return ch.Relation.KeyColumns() != nil // rows that wait are gone
	}
	if apply.NeedsSelfMerge(m.policy, tx, ch) {
		// The server knows when a row was written that nothing else is known of.
		return !m.local.Tracks(tx.XID) || !apply.Plain(m.policy, tx, ch) || ch.Relation.Asks() ||
			m.local.May(m.local.Own(ch.Relation), ch.AppendKey(nil))
	}
	// A tombstone of another region may have been written without sight of the row.
	return ch.Op == wal.Insert && !ch.Repair && ch.Relation.KeyColumns() != nil && m.local.Any(m.local.Own(ch.Relation)) &&
		(ch.Relation.Asks() || m.local.May(m.local.Own(ch.Relation), ch.AppendKey(nil)))
}

// NewSelfMerge makes the filter of one run of the self-merge.
func NewSelfMerge(policy apply.Policy, local *LocalWAL) *SelfMerge {
	return &SelfMerge{policy: policy, local: local, kept: make(chan struct{}, 1)}
}
