package conflict

import (
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// The model: regions with a table, tombstones, a WAL, a publisher that reads the WAL later, an
// applier for each other region, and a self-merge of what the publisher stamped. All of it
// uses the real StampChange, SplitKeyChange, StampOf, Content and Resolve.

// modelConfig describes the table and what goes wrong.
type modelConfig struct {
	regions   int
	version   bool
	time      bool
	full      bool // replica identity FULL, else the key only
	order     Order
	skew      int64 // microseconds by which clocks differ at most
	jumps     bool
	txDelay   int64 // now() is the start of the transaction
	bump      bool  // the version rises with each update, as by a trigger
	stale     bool  // applications write old versions and times by hand
	deletes   bool
	keyChange bool
	phases    int // between two phases everything drains, and tombstones are collected
	ops       int
	keys      int
	redeliver bool // events come again, out of order; the checkpoint does not allow that
	window    window
	breakage  breakage
}

// window says what the applier does about own changes that are committed but not published
// yet, whose stamps are therefore unknown when a remote event meets their rows.
type window uint8

const (
	open      window = iota // nothing: the worst case
	lookAhead               // the self-merge leaves alone what a later own change has superseded
	barrier                 // before an event is applied, the WAL is read to its end and merged
	windows
)

// breakage switches one rule off, to see that the oracle notices.
type breakage uint8

const (
	sound breakage = iota
	noTombstones
	noGenerations
	noPushback
	noSelfMerge
	noLift // and no pushback, which would heal it by taking the write back
	arrivalWins
	dropsEvents
	dropsAudit
	forgetsAtOnce
	runsFall
)

type modelTombstone struct {
	stamp   wal.Stamp
	live    bool // a row of the next generation lives
	deleted wal.Micros
	wid     int
}

type indexed struct {
	gen uint32
	lsn int
}

type logged struct {
	ch     wal.Change
	lsn    int
	commit wal.Micros
	wids   [2]int // of the change; of the second half of a key change
}

type modelEvent struct {
	ev   Event
	key  string
	row  wal.Tuple
	wid  int
	from int
	lsn  int // in the WAL of its origin
}

type modelRegion struct {
	id         int
	rows       map[string]wal.Tuple
	tombstones map[string]modelTombstone
	stamps     map[string]wal.Micros // stampless: what pgwaltz.tombstone holds
	last       map[string]int        // wid of what the application sees under a key, or of the delete
	index      map[string]indexed    // the publisher's view of the tombstones
	log        []logged
	read       int // how much of the WAL is published
	lsn        int
	hlc        wal.Micros
	offset     int64
	out        []modelEvent
	self       []modelEvent
	pos        []int
	floor      []int // what is older is not delivered again
}

type write struct {
	key  string
	prev int
	row  bool // an insert or update; a delete leaves nothing behind that could be lost
}

type model struct {
	cfg     modelConfig
	pol     Policy
	rng     *rand.Rand
	rel     *wal.Relation
	cols    Columns
	regions []*modelRegion
	clock   int64
	writes  []write // by wid; wid 0 is "nothing"
	lost    map[string]map[int]bool
	audited int
	trace   func(string, ...any)
}

func newModel(cfg modelConfig, seed uint64) *model {
	m := &model{
		cfg: cfg, rng: rand.New(rand.NewPCG(seed, 7)), clock: 1_700_000_000_000_000,
		writes: make([]write, 1), lost: map[string]map[int]bool{},
		pol: Policy{Order: cfg.order},
	}
	if cfg.phases > 1 {
		m.pol.ForgetAfter = phaseGap / 2
	}
	if cfg.breakage == forgetsAtOnce {
		m.pol.ForgetAfter = 1
	}
	m.rel = &wal.Relation{Schema: "public", Name: "m", Identity: wal.IdentityDefault, PrimaryKey: []int{0}}
	if cfg.full {
		m.rel.Identity = wal.IdentityFull
	}
	add := func(name string, oid uint32) {
		m.rel.Columns = append(m.rel.Columns, wal.Column{Name: name, OID: oid, Key: cfg.full || name == "id"})
	}
	add("id", 25)
	add("val", 25)
	if cfg.version {
		add("version", 20)
	}
	if cfg.time {
		add("updated_at", 1184)
	}
	m.cols = ColumnsOf(m.rel, "version", "updated_at")
	for i := range cfg.regions {
		r := &modelRegion{
			id: i, rows: map[string]wal.Tuple{}, tombstones: map[string]modelTombstone{}, stamps: map[string]wal.Micros{},
			last: map[string]int{}, index: map[string]indexed{}, pos: make([]int, cfg.regions), floor: make([]int, cfg.regions),
		}
		if cfg.skew > 0 {
			r.offset = m.rng.Int64N(2*cfg.skew) - cfg.skew
		}
		m.regions = append(m.regions, r)
	}
	return m
}

// phaseGap is longer than anything that happens within a phase, skew included.
const phaseGap = 24 * 3600 * 1_000_000

func (m *model) now(r *modelRegion) int64 { return m.clock + r.offset }

func textOf(s string) wal.Value { return wal.Value{Kind: wal.Text, Bytes: []byte(s)} }

func timeText(us int64) string {
	return time.UnixMicro(us).UTC().Format("2006-01-02 15:04:05.999999+00")
}

// image makes a row with the given stamp columns; a nil version is NULL.
func (m *model) image(key string, wid int, version *int64, at *int64) wal.Tuple {
	t := wal.Tuple{textOf(key), textOf("w" + strconv.Itoa(m.rng.IntN(10)) + "-" + strconv.Itoa(wid))}
	if m.cfg.version {
		if version == nil {
			t = append(t, wal.Value{Kind: wal.Null})
		} else {
			t = append(t, textOf(strconv.FormatInt(*version, 10)))
		}
	}
	if m.cfg.time {
		if at == nil {
			t = append(t, wal.Value{Kind: wal.Null})
		} else {
			t = append(t, textOf(timeText(*at)))
		}
	}
	return t
}

func (m *model) newWrite(r *modelRegion, key string, row bool) int {
	m.writes = append(m.writes, write{key, r.last[key], row})
	w := len(m.writes) - 1
	r.last[key] = w
	return w
}

// local runs one statement of the application.
func (m *model) local(r *modelRegion) {
	m.clock += 1 + m.rng.Int64N(1000)
	if m.cfg.jumps && m.rng.IntN(10) == 0 {
		r.offset = m.rng.Int64N(2*m.cfg.skew+1) - m.cfg.skew
	}
	key := "k" + strconv.Itoa(m.rng.IntN(m.cfg.keys))
	start := m.now(r)
	if m.cfg.txDelay > 0 {
		start -= m.rng.Int64N(m.cfg.txDelay)
	}
	entry := logged{commit: wal.Micros(m.now(r))}
	entry.ch.Relation = m.rel
	old, there := r.rows[key]
	roll := m.rng.IntN(100)
	switch {
	case !there:
		v := int64(0)
		w := m.newWrite(r, key, true)
		entry.wids[0] = w
		entry.ch.Op = wal.Insert
		if m.cfg.stale && m.rng.IntN(4) == 0 {
			v = m.rng.Int64N(6)
		}
		entry.ch.New = m.image(key, w, &v, &start)
		r.rows[key] = entry.ch.New
	case m.cfg.deletes && roll < 25:
		entry.wids[0] = m.newWrite(r, key, false)
		entry.ch.Op = wal.Delete
		entry.ch.Old, entry.ch.OldFull = m.old(old)
		delete(r.rows, key)
	case m.cfg.keyChange && roll < 32:
		to := "k" + strconv.Itoa(m.rng.IntN(m.cfg.keys))
		if _, taken := r.rows[to]; taken {
			return
		}
		entry.wids[0] = m.newWrite(r, key, false)
		entry.wids[1] = m.newWrite(r, to, true)
		entry.ch.Op = wal.Update
		entry.ch.Old, entry.ch.OldFull = m.old(old)
		v, at := m.rise(old, start)
		entry.ch.New = m.image(to, entry.wids[1], v, at)
		delete(r.rows, key)
		r.rows[to] = entry.ch.New
	default:
		w := m.newWrite(r, key, true)
		entry.wids[0] = w
		entry.ch.Op = wal.Update
		if m.cfg.full {
			entry.ch.Old, entry.ch.OldFull = old, true
		}
		v, at := m.rise(old, start)
		entry.ch.New = m.image(key, w, v, at)
		r.rows[key] = entry.ch.New
	}
	r.lsn++
	entry.lsn = r.lsn
	r.log = append(r.log, entry)
	if m.trace != nil {
		m.trace("%d local w%v (prev %d) %s %s %s", r.id, entry.wids, m.writes[entry.wids[0]].prev, entry.ch.Op, key, entry.ch.New)
	}
}

// rise is what the application or its triggers make of the stamp columns.
func (m *model) rise(old wal.Tuple, start int64) (*int64, *int64) {
	s, err := StampOf(m.cols, m.rel, old, 0)
	if err != nil {
		panic(err)
	}
	version := s.Version
	if version == wal.NullVersion {
		version = 0
	}
	if m.cfg.bump {
		version++
	}
	at := start
	if m.cfg.stale {
		switch m.rng.IntN(6) {
		case 0:
			version = m.rng.Int64N(6)
		case 1:
			at -= m.rng.Int64N(100_000)
		case 2:
			return nil, &at
		case 3:
			return &version, nil
		}
	}
	return &version, &at
}

func (m *model) old(row wal.Tuple) (wal.Tuple, bool) {
	if m.cfg.full {
		return row, true
	}
	t := make(wal.Tuple, len(row))
	for i := range t {
		t[i].Kind = wal.Null
	}
	t[0] = row[0]
	return t, false
}
