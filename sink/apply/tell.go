package apply

import (
	"context"
	"fmt"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/decoder"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// What an apply transaction has to say to the other region goes into the same transaction, as
// logical messages: the repair of an entry that loses here, and a notice of every conflict
// that is recorded here. So they are exactly as durable as the decision, our own slot brings
// them in commit order behind every write that the decision has seen, and they are published
// again whenever the WAL is. Nothing has to be kept or cleaned up.

// tellSQL writes one message.
const tellSQL = `select pg_catalog.pg_logical_emit_message(true, '` + decoder.TellPrefix + `', $1::bytea)`

// told gathers what is to be said.
type told struct {
	repairs []wal.Change
	notices []wal.Notice
	size    int
}

// tellBytes is how much is encoded into one tell, so that it fits one message.
const tellBytes = 768 << 10

func (t *told) repair(c wal.Change) {
	t.repairs = append(t.repairs, c)
	t.size += c.Size()
}

func (t *told) notice(n wal.Notice) {
	t.notices = append(t.notices, n)
	t.size += n.Size()
}

func (t *told) add(o told) {
	t.repairs = append(t.repairs, o.repairs...)
	t.notices = append(t.notices, o.notices...)
	t.size += o.size
}

// each hands on the messages that carry everything, one by one. Each key's repair stands where it was
// decided; a notice has no place among them. now is the time that they are given, and
// ours describes a relation as one of this region's.
func (t *told) each(token []byte, now wal.Micros, ours func(*wal.Relation) *wal.Relation, send func(message []byte) error) error {
	var tx wal.Transaction
	size := 0
	flush := func() error {
		if len(tx.Changes)+len(tx.Notices) == 0 {
			return nil
		}
		// A transaction that carries a replication origin comes out of the slot with the time
		// that was set for the origin: none. So the time travels with the tell.
		tx.CommitTime = now
		data, err := wire.EncodeTransaction(&tx)
		if err != nil {
			return fmt.Errorf("encode repairs and notices: %w", err)
		}
		for m := range decoder.SplitTell(token, data) {
			if err := send(m); err != nil {
				return err
			}
		}
		tx, size = wal.Transaction{}, 0
		return nil
	}
	for i := range t.repairs {
		c := t.repairs[i]
		c.Relation = ours(c.Relation)
		tx.Changes = append(tx.Changes, c)
		if size += t.repairs[i].Size(); size >= tellBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	for i := range t.notices {
		n := t.notices[i]
		n.Relation = ours(n.Relation)
		tx.Notices = append(tx.Notices, n)
		if size += t.notices[i].Size(); size >= tellBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// conflict notes a record and the notice that tells the other region of it. Of a conflict with an
// own change every peer is told: nobody knows here which of them wrote the row.
func (a *Applier) conflict(fx *effects, rel *wal.Relation, rec audit.Record, yours, mine wal.Entry) {
	fx.audit = append(fx.audit, rec)
	fx.size += len(rec.LocalRow) + len(rec.RemoteRow) + 512
	if !a.cfg.Tell {
		return
	}
	n := wal.Notice{Relation: rel, ID: rec.EventID, To: a.cfg.Origin, Type: string(mirror(conflict.Type(rec.Type))), Yours: yours, Mine: mine}
	to := []string{a.cfg.Origin}
	if a.cfg.Self {
		to = a.cfg.Peers
	}
	for _, n.To = range to {
		switch {
		case rec.Winner == "":
		case rec.Winner == n.To, a.cfg.Self && rec.Winner != a.cfg.Region:
			n.Outcome = wal.Won
		default:
			n.Outcome = wal.Lost
		}
		fx.tell.notice(n)
	}
}

// decided notes the conflict that a verdict stands for, and the repair of the entry that
// loses in the other region.
func (a *Applier) decided(ctx context.Context, g *batch.Group, t *target, v *verdict, fx *effects) error {
	if v.Type == conflict.None && !v.Pushback {
		return nil
	}
	r := &g.Runs[v.i]
	image, err := a.textImage(ctx, g, t, v.i)
	if err != nil {
		return err
	}
	event := wal.Entry{Known: true, Alive: r.Op != wal.Delete, Stamp: r.Stamp, Row: keyImage(g, r)}
	if event.Alive {
		event.Row = batch.Fill(image, v.known.row)
	}
	local := wal.Entry{Known: v.side.Known, Alive: v.side.Alive, Stamp: v.side.Stamp, Row: keyImage(g, r)}
	if local.Alive {
		local.Row = v.known.row
	}
	if v.Type != conflict.None {
		rec, err := a.record(g, v, image)
		if err != nil {
			return err
		}
		yours, mine := event, local
		if a.cfg.Self {
			yours, mine = local, event
		}
		a.conflict(fx, g.Rel, rec, yours, mine)
	}
	if v.Pushback && a.cfg.Tell {
		winner := event // of an own change that is in the table already, nothing else may say yet what it was stamped
		if v.Verdict == conflict.Keep {
			winner = local
		}
		fx.tell.repair(repairOf(g.Rel, winner))
	}
	return nil
}

// repairOf is an entry as a change of its own.
func repairOf(rel *wal.Relation, e wal.Entry) wal.Change {
	c := wal.Change{Op: wal.Update, Relation: rel, Stamp: e.Stamp, Repair: true}
	if e.Alive {
		c.New = e.Row
	} else {
		c.Op, c.Old = wal.Delete, e.Row
	}
	return c
}

// mirror is the type of a conflict as the other region sees it.
func mirror(t conflict.Type) conflict.Type {
	switch t {
	case conflict.UpdateDeleted:
		return conflict.DeleteOriginDiffers
	case conflict.DeleteOriginDiffers:
		return conflict.UpdateDeleted
	}
	return t
}

// heard records the notices that are for this region, and answers those that want an entry. They stand beside the batch: whatever
// becomes of the changes, of other keys or of the same, every notice is recorded once.
func (a *Applier) heard(ctx context.Context, txs []keyedTx, fx *effects) error {
	var wanted, absent []*wal.Notice
	for _, k := range txs {
		for i := range k.tx.Notices {
			n := &k.tx.Notices[i]
			if n.To != a.cfg.Region || a.cfg.Self {
				continue
			}
			switch n.Outcome {
			case wal.Wanted:
				wanted = append(wanted, n)
				continue
			case wal.Absent:
				absent = append(absent, n)
				continue
			}
			fx.audit = append(fx.audit, a.heardRecord(n, k.tx))
			fx.size += n.Size()
			if err := a.spillLarge(ctx, fx); err != nil {
				return err
			}
		}
	}
	if err := a.absent(ctx, absent, fx); err != nil {
		return err
	}
	return a.answer(ctx, wanted, fx)
}

// heardRecord describes a conflict that another region found.
func (a *Applier) heardRecord(n *wal.Notice, tx *wal.Transaction) audit.Record {
	rec := audit.Record{
		EventID: n.ID, Region: a.cfg.Region, Relation: n.Relation.Ref(), Key: []byte("{}"), Type: string(conflict.Told(n.Type)), Reason: "told",
		LocalStamp: entryStamp(n.Yours), RemoteStamp: entryStamp(n.Mine), LocalRow: a.entryRow(n.Relation, n.Yours), RemoteRow: a.entryRow(n.Relation, n.Mine),
		Origin: a.cfg.Origin, OriginXID: tx.XID, CommitLSN: tx.CommitLSN, CommitTime: tx.CommitTime,
	}
	if row := n.Yours.Row; row != nil && n.Relation.KeyColumns() != nil {
		rec.Key = a.keyJSON(n.Relation, row, n.Relation.KeyColumns())
	}
	switch n.Outcome {
	case wal.Won:
		rec.Verdict, rec.Winner, rec.Loser = conflict.Keep.String(), a.cfg.Region, a.cfg.Origin
	case wal.Lost:
		rec.Verdict, rec.Winner, rec.Loser = conflict.Apply.String(), a.cfg.Origin, a.cfg.Region
	default:
		rec.Verdict = conflict.Park.String()
	}
	return rec
}

func entryStamp(e wal.Entry) string {
	if !e.Known {
		return ""
	}
	return stampText(e.Stamp)
}

func (a *Applier) entryRow(rel *wal.Relation, e wal.Entry) []byte {
	if !e.Alive {
		return nil
	}
	return a.json(rel, e.Row)
}
