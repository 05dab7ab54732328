package sim

import (
	"slices"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// rowKey names a row: table and canonical key text.
type rowKey struct {
	table int
	key   string
}

// tomb is a row of pgwaltz.tombstone.
type tomb struct {
	stamp   wal.Stamp
	live    bool
	deleted wal.Micros
	lsn     wal.LSN
}

// entry is everything that a database holds of one key. Entries are replaced, never changed.
type entry struct {
	row    wal.Tuple
	wid    int  // the write that an application sees, or that removed it
	local  bool // an application wrote or removed the row last
	tomb   *tomb
	stamp  wal.Micros // stampless tables: the time that pgwaltz.tombstone holds
	stampd bool
	plain  bool            // the time says only when this region wrote the row
	items  []conflict.Item // what own changes are stamped from
	parked *parked         // a change that lacks values
}

// parked is a row of pgwaltz.parked.
type parked struct {
	conflict.Waiting
	origin int
	kind   conflict.EventKind
	tx     *wal.Transaction // that it belongs to
	denied int              // the peers that do not hold what it lacks, as bits
}

// record is a row of the audit log.
type record struct {
	id   [16]byte
	lost int  // write id of the loser; 0: not known here
	self bool // found by the self-merge
}

// entry reports whether something stands beside the row, live whether it says that one lives.
func (e entry) entry() bool { return e.tomb != nil || e.stampd }
func (e entry) live() bool  { return e.tomb == nil && e.stampd || e.tomb != nil && e.tomb.live }

// walChange is one row change in the WAL.
type walChange struct {
	table    int
	op       wal.Op
	old, new wal.Tuple
	full     bool
}

// walTx is one committed transaction in the WAL.
type walTx struct {
	xid         uint32
	commit, end wal.LSN
	at          wal.Micros
	applied     bool // by an applier: carries an origin or the marker
	changes     []walChange

	undo    []undo // until it is on disk
	cp, old checkpoint.Checkpoint
	hasCP   bool
	rows    int
	audits  int
	repairs []wal.Change // told to the other regions
	notices []wal.Notice
	life    int // of the process that committed it
}

type undo struct {
	key rowKey
	old entry
}

// database is a server: tables, side tables, WAL, slot.
type database struct {
	w      *World
	r      *region
	tables []*table
	epoch  wal.Epoch
	keys   map[rowKey]entry
	cps    map[string]checkpoint.Checkpoint
	onDisk map[string]checkpoint.Checkpoint // what is left of cps after a crash
	rows   map[string]int                   // changes applied, by origin; those of its own applications under its name
	audit  []record
	locks  map[rowKey]*dbtx
	refuse map[int]refusal // by table
	open   []*dbtx
	late   map[rowKey]*dbtx // committed and on disk, not visible yet

	incarnation uint32            // pgwaltz.stream
	stored      checkpoint.Stored // what else stands there
	gapAt       time.Time
	resynced    time.Time
	copies      bool          // the tables are to be copied, until every peer has them
	copied      wire.Position // of the frame that ends the copy
	wal         []*walTx
	flushed     int     // so many transactions of the WAL are on disk
	insert      wal.LSN // where the WAL ends
	xid         uint32
	offset      int64 // of its clock, microseconds
	confirmed   wal.LSN
	saved       wal.LSN // confirmed, as it is on disk
	clock       map[wal.LSN]wal.Micros
	given       map[changeAt]given // stamps of the first decoding
	stamped     map[rowKey]given   // the last one of each key
	local       uint64             // transactions of applications
	lifetime    int                // counts crashes and restarts
}

func newDatabase(w *World, r *region) *database {
	d := &database{
		w: w, r: r, keys: map[rowKey]entry{}, cps: map[string]checkpoint.Checkpoint{}, onDisk: map[string]checkpoint.Checkpoint{},
		locks: map[rowKey]*dbtx{}, refuse: map[int]refusal{}, given: map[changeAt]given{}, stamped: map[rowKey]given{}, clock: map[wal.LSN]wal.Micros{}, late: map[rowKey]*dbtx{}, rows: map[string]int{}, insert: wal.LSN(1000 + w.rng.IntN(5000)), xid: 700,
		epoch: wal.Epoch{SystemID: uint64(7000 + r.id), Timeline: 1, Slot: "pgwaltz_" + r.name},
	}
	d.confirmed, d.saved = d.insert, d.insert
	for i, c := range w.cfg.Tables {
		c.Full = c.Full != (c.Mixed && r.id%2 == 1)
		d.tables = append(d.tables, newTable(i, c))
	}
	if w.cfg.Skew > 0 {
		d.offset = w.rng.Int64N(2*w.cfg.Skew) - w.cfg.Skew
	}
	return d
}

func (d *database) now() wal.Micros { return d.w.now() + wal.Micros(d.offset) }

// with adds an item; what no decoding can ask for any more is joined.
func (e entry) with(it conflict.Item, horizon wal.LSN) entry {
	e.items = conflict.Trim(append(slices.Clip(e.items), it), horizon)
	return e
}

// flushLSN is the end of the WAL on disk.
func (d *database) flushLSN() wal.LSN {
	if d.flushed == len(d.wal) {
		return d.insert
	}
	return d.wal[d.flushed].commit - 1
}

// side is the entry of a key as the merge sees it.
func (d *database) side(k rowKey, e entry) conflict.Side {
	t := d.tables[k.table]
	if e.row == nil {
		if e.tomb == nil || e.tomb.live {
			return conflict.Side{}
		}
		return conflict.Side{Known: true, Stamp: e.tomb.stamp, DeletedAt: e.tomb.deleted}
	}
	fallback := wal.MinMicros
	if e.stampd {
		fallback = e.stamp
	}
	s, err := conflict.StampOf(t.cols, t.rel, e.row, fallback)
	d.w.must(err)
	if e.tomb != nil {
		s.Generation = e.tomb.stamp.Generation + 1
	}
	content, _ := conflict.Content(t.rel, e.row)
	return conflict.Side{Known: true, Alive: true, Stamp: s, Content: content}
}

// flush brings the WAL to disk.
func (d *database) flush() {
	if d.flushed == len(d.wal) {
		return
	}
	for ; d.flushed < len(d.wal); d.flushed++ {
		tx := d.wal[d.flushed]
		tx.undo = nil
		if tx.hasCP {
			d.onDisk[tx.cp.Origin] = tx.cp
		}
	}
	d.r.side.flushed()
}

// crash is the loss of the server: open transactions and what is not on disk are gone, and
// the slot is where it was saved last.
func (d *database) crash() {
	d.revealAll()
	for len(d.open) > 0 {
		d.open[0].rollback()
	}
	for i := len(d.wal) - 1; i >= d.flushed; i-- {
		tx := d.wal[i]
		for n := len(tx.undo) - 1; n >= 0; n-- {
			d.keys[tx.undo[n].key] = tx.undo[n].old
		}
		if tx.hasCP {
			d.cps[tx.cp.Origin] = tx.old
			d.rows[tx.cp.Origin] -= tx.rows
		}
		d.audit = d.audit[:len(d.audit)-tx.audits]
		d.insert = tx.commit - 1
	}
	d.w.note(d.r.id, "pg crash", uint64(len(d.wal)-d.flushed), uint64(d.saved))
	d.wal = d.wal[:d.flushed]
	d.restart()
}

// restart ends all sessions. The slot goes back to what was saved of it.
func (d *database) restart() {
	d.revealAll()
	for len(d.open) > 0 {
		d.open[0].rollback()
	}
	d.confirmed = d.saved
	d.lifetime++
}
