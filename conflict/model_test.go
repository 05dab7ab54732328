package conflict

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// The model: regions with a table, graves, a log, a publisher that reads the log later, an
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
	barrier                 // before an event is applied, the log is read to its end and merged
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
	noLift
	arrivalWins
	dropsEvents
	dropsAudit
	forgetsAtOnce
	runsFall
)

type modelGrave struct {
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
	lsn  int // in the log of its origin
}

type modelRegion struct {
	id     int
	rows   map[string]wal.Tuple
	graves map[string]modelGrave
	stamps map[string]wal.Micros // stampless: what pgwaltz.row_stamp holds
	last   map[string]int        // wid of what the application sees under a key, or of the delete
	index  map[string]indexed    // the publisher's view of the graves
	log    []logged
	read   int // how much of the log is published
	lsn    int
	hlc    wal.Micros
	offset int64
	out    []modelEvent
	self   []modelEvent
	pos    []int
	floor  []int // what is older is not delivered again
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
			id: i, rows: map[string]wal.Tuple{}, graves: map[string]modelGrave{}, stamps: map[string]wal.Micros{},
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

// publish reads one change from the log and stamps it.
func (m *model) publish(r *modelRegion) {
	if r.read == len(r.log) {
		return
	}
	l := r.log[r.read]
	r.read++
	if del, ins, ok := SplitKeyChange(l.ch); ok {
		m.stamp(r, del, l, l.wids[0])
		m.stamp(r, ins, l, l.wids[1])
		return
	}
	m.stamp(r, l.ch, l, l.wids[0])
}

func (m *model) stamp(r *modelRegion, ch wal.Change, l logged, wid int) {
	row := ch.New
	if ch.Op == wal.Delete {
		row = ch.Old
	}
	key := string(row[0].Bytes)
	at := l.commit
	if m.cols.Stampless() {
		r.hlc = max(r.hlc+1, l.commit)
		at = r.hlc
	}
	st, err := StampChange(m.pol, m.cols, &ch, at, r.graveBefore(key, l.lsn))
	if err != nil {
		panic(err)
	}
	if m.cfg.breakage == noGenerations || (m.cfg.breakage == noLift && st.Lifted) {
		ch.Stamp.Generation, ch.Base.Stamp.Generation = 0, 0
		st.Grave = GraveUnder(ch.Stamp, ch.Op != wal.Delete)
	}
	if st.Grave.Present {
		r.note(key, st.Grave.Generation, l.lsn)
	}
	e := modelEvent{
		ev:  Event{Op: ch.Op, Stamp: ch.Stamp, Base: ch.Base, Complete: true, CommitTime: l.commit},
		key: key, wid: wid, from: r.id, lsn: l.lsn,
	}
	if ch.Op != wal.Delete {
		e.row = ch.New
		e.ev.Content = m.content(ch.New)
	}
	if m.trace != nil {
		m.trace("%d stamps w%d %s %s %s base %v %s", r.id, wid, ch.Op, key, StampText(ch.Stamp), ch.Base.Known, StampText(ch.Base.Stamp))
	}
	r.out = append(r.out, e)
	if st.SelfMerge && m.cfg.breakage != noSelfMerge {
		r.self = append(r.self, e)
	}
}

// graveBefore is what the publisher's index says of the time before a change.
func (r *modelRegion) graveBefore(key string, lsn int) Grave {
	x, ok := r.index[key]
	gen := x.gen + 1
	if ok && x.lsn >= lsn {
		gen = x.gen
	}
	if !ok || gen == 0 {
		return Grave{}
	}
	return Grave{Present: true, Generation: gen - 1}
}

func (r *modelRegion) note(key string, gen uint32, lsn int) {
	old, ok := r.index[key]
	if ok && old.gen == gen {
		lsn = min(lsn, old.lsn) // the grave is as old as its first mention
	}
	if !ok || old.gen <= gen {
		r.index[key] = indexed{gen, lsn}
	}
}

func (m *model) content(row wal.Tuple) []byte {
	c, ok := Content(m.rel, row)
	if !ok {
		panic("content of a text row")
	}
	return c
}

// side reads the local entry the way an applier does: from the row and its grave.
func (m *model) side(r *modelRegion, key string) Side {
	row, alive := r.rows[key]
	g, grave := r.graves[key]
	if !alive {
		if !grave {
			return Side{}
		}
		return Side{Known: true, Stamp: g.stamp, DeletedAt: g.deleted}
	}
	fallback := wal.MinMicros
	if at, ok := r.stamps[key]; ok {
		fallback = at
	}
	s, err := StampOf(m.cols, m.rel, row, fallback)
	if err != nil {
		panic(err)
	}
	if grave {
		s.Generation = g.stamp.Generation + 1
	}
	return Side{Known: true, Alive: true, Stamp: s, Content: m.content(row)}
}

// apply merges one event, or the net effect of several, into a region.
func (m *model) apply(r *modelRegion, e modelEvent) {
	l := m.side(r, e.key)
	d := Resolve(m.pol, e.ev, l)
	if m.trace != nil {
		m.trace("%d applies %s w%d from %d %s %s %s base %v %s over known=%v alive=%v %s (w%d): %s %s %s pushback=%v", r.id, e.ev.Kind, e.wid, e.from, e.key, e.ev.Op, StampText(e.ev.Stamp), e.ev.Base.Known, StampText(e.ev.Base.Stamp), l.Known, l.Alive, StampText(l.Stamp), r.last[e.key], d.Verdict, d.Type, d.Reason, d.Pushback)
	}
	if m.cfg.breakage == arrivalWins && d.Verdict == Keep {
		d.Verdict = Apply
	}
	before := r.last[e.key]
	if d.Conflict() && m.cfg.breakage != dropsAudit {
		m.audited++
		lost := m.lost[e.key]
		if lost == nil {
			lost = map[int]bool{}
			m.lost[e.key] = lost
		}
		if d.Verdict == Apply {
			lost[before] = true
		} else {
			lost[e.wid] = true
		}
	}
	if d.Pushback && m.cfg.breakage != noPushback {
		back := modelEvent{ev: e.ev, key: e.key, row: e.row, wid: e.wid, from: r.id}
		if d.Verdict == Keep {
			back.ev = Event{Op: wal.Update, Stamp: l.Stamp, Content: l.Content, CommitTime: e.ev.CommitTime}
			if !l.Alive {
				back.ev.Op = wal.Delete
			}
			back.row, back.wid = r.rows[e.key], before
		}
		back.ev.Kind, back.ev.Base, back.ev.Born, back.ev.Complete = Repair, wal.Base{}, false, true
		if back.ev.Op == wal.Insert {
			back.ev.Op = wal.Update
		}
		r.out = append(r.out, back)
	}
	switch d.Verdict {
	case Apply:
		m.carryOut(r, e)
	case Same:
		m.mark(r, e, r.lsn) // the grave under a living row is not for collection any more
	}
}

func (m *model) carryOut(r *modelRegion, e modelEvent) {
	alive := e.ev.Op != wal.Delete
	r.lsn++
	lsn := r.lsn
	if alive {
		r.rows[e.key] = e.row
		if m.cols.Stampless() {
			r.stamps[e.key] = e.ev.Stamp.UpdatedAt
		}
	} else {
		delete(r.rows, e.key)
	}
	r.last[e.key] = e.wid
	if e.ev.Stamp.UpdatedAt != wal.MaxMicros {
		r.hlc = max(r.hlc, e.ev.Stamp.UpdatedAt)
	}
	g := GraveUnder(e.ev.Stamp, alive)
	if !g.Present {
		delete(r.graves, e.key) // not from the index: own stamps of a key must never fall
		return
	}
	m.mark(r, e, lsn)
}

// mark writes the grave of an entry, unless a higher one is there.
func (m *model) mark(r *modelRegion, e modelEvent, lsn int) {
	if m.cfg.breakage == noTombstones {
		return
	}
	alive := e.ev.Op != wal.Delete
	g := GraveUnder(e.ev.Stamp, alive)
	if !g.Present {
		return
	}
	s := e.ev.Stamp
	if alive {
		s = wal.Stamp{Generation: g.Generation, Version: wal.NullVersion, UpdatedAt: wal.MinMicros}
	}
	r.graves[e.key] = modelGrave{stamp: s, live: alive, deleted: e.ev.CommitTime, wid: e.wid}
	r.note(e.key, g.Generation, lsn)
}

// deliver hands up to n events of one region to another, some of them again.
func (m *model) deliver(to, from *modelRegion, n int) {
	p := to.pos[from.id]
	if m.cfg.redeliver && m.rng.IntN(6) == 0 {
		p = max(p-m.rng.IntN(4), to.floor[from.id])
	}
	end := min(p+n, len(from.out))
	if p >= end {
		return
	}
	batch := from.out[p:end]
	if m.cfg.breakage == dropsEvents && m.rng.IntN(10) == 0 {
		batch = batch[1:]
	}
	if m.rng.IntN(2) == 0 {
		batch = m.coalesce(batch)
	}
	for _, e := range batch {
		if m.cfg.window == barrier {
			for to.read < len(to.log) {
				m.publish(to)
			}
			for len(to.self) > 0 {
				m.selfMerge(to)
			}
		}
		m.apply(to, e)
	}
	to.pos[from.id] = max(to.pos[from.id], end)
}

// coalesce reduces a batch to the net effect for each key, as the applier does.
func (m *model) coalesce(batch []modelEvent) []modelEvent {
	var out []modelEvent
	at := map[string]int{}
	for _, e := range batch {
		i, seen := at[e.key]
		if !seen || e.ev.Kind != Live || out[i].ev.Kind != Live || !m.supersedes(e, out[i]) {
			at[e.key] = len(out)
			e.ev.Born = e.ev.Op == wal.Insert
			out = append(out, e)
			continue
		}
		first := out[i].ev
		e.ev.Base, e.ev.Born = first.Base, first.Born
		switch {
		case e.ev.Op == wal.Delete:
		case first.Born:
			e.ev.Op = wal.Insert
		default:
			e.ev.Op = wal.Update
		}
		// What the run itself superseded is an ancestor or was recorded at its origin.
		out[i] = e
	}
	return out
}

// supersedes: a run goes on only while it rises.
func (m *model) supersedes(e, run modelEvent) bool {
	if m.cfg.breakage == runsFall {
		return true
	}
	return m.pol.CompareSides(e.ev.Side(), run.ev.Side()) > 0
}

func (m *model) selfMerge(r *modelRegion) {
	if len(r.self) == 0 {
		return
	}
	e := r.self[0]
	r.self = r.self[1:]
	e.ev.Kind = Self
	if m.cfg.window != open && m.superseded(r, e) {
		return
	}
	m.apply(r, e)
}

// superseded reports whether the log holds a later change of the key: what the table shows
// may be that one, whose turn comes.
func (m *model) superseded(r *modelRegion, e modelEvent) bool {
	for i := len(r.log) - 1; i >= 0 && r.log[i].lsn > e.lsn; i-- {
		for _, t := range [...]wal.Tuple{r.log[i].ch.Old, r.log[i].ch.New} {
			if t != nil && string(t[0].Bytes) == e.key {
				return true
			}
		}
	}
	return false
}

// step is one random action.
func (m *model) step() {
	r := m.regions[m.rng.IntN(len(m.regions))]
	switch m.rng.IntN(6) {
	case 0, 1:
		m.local(r)
	case 2, 3:
		for range 1 + m.rng.IntN(3) {
			m.publish(r)
		}
	case 4:
		for range 1 + m.rng.IntN(3) {
			m.selfMerge(r)
		}
	default:
		o := m.regions[m.rng.IntN(len(m.regions))]
		if o != r {
			m.deliver(r, o, 1+m.rng.IntN(4))
		}
	}
}

// drain heals everything. It reports false when the regions go on sending for ever.
func (m *model) drain() bool {
	for range 400 {
		quiet := true
		for _, r := range m.regions {
			for r.read < len(r.log) {
				quiet = false
				m.publish(r)
			}
			for len(r.self) > 0 {
				quiet = false
				m.selfMerge(r)
			}
			for _, o := range m.regions {
				if o != r && r.pos[o.id] < len(o.out) {
					quiet = false
					m.deliver(r, o, 1+m.rng.IntN(8))
				}
			}
		}
		if quiet {
			return true
		}
	}
	return false
}

// collect removes tombstones here and there; every region has seen them all.
func (m *model) collect() {
	for _, r := range m.regions {
		copy(r.floor, r.pos)
		for k, g := range r.graves {
			if !g.live && m.rng.IntN(2) == 0 {
				delete(r.graves, k)
				delete(r.index, k)
				delete(r.stamps, k)
				_ = g
			}
		}
	}
	m.clock += phaseGap
}

// run plays one schedule and returns what is wrong at its end, "" for nothing.
func (m *model) run() string {
	phases := max(m.cfg.phases, 1)
	for p := range phases {
		for range m.cfg.ops * 4 {
			m.step()
		}
		if !m.drain() {
			return "does not come to rest"
		}
		if bad := m.check(); bad != "" {
			return fmt.Sprintf("phase %d: %s", p, bad)
		}
		if p < phases-1 {
			m.collect()
		}
	}
	return ""
}

// check holds the regions against each other, and the ledger against the end and the audit.
func (m *model) check() string {
	for k := range m.cfg.keys {
		key := "k" + strconv.Itoa(k)
		a := m.side(m.regions[0], key)
		for _, r := range m.regions[1:] {
			b := m.side(r, key)
			if a.Known != b.Known && (a.Known && a.Alive || b.Known && b.Alive) {
				return fmt.Sprintf("diverged: %s is known in one region only", key)
			}
			if !a.Known || !b.Known {
				continue // a tombstone that one region collected already
			}
			if m.pol.CompareSides(a, b) != 0 {
				return fmt.Sprintf("diverged: %s is %v %s here and %v %s there", key, a.Alive, StampText(a.Stamp), b.Alive, StampText(b.Stamp))
			}
		}
	}
	explained := map[int]bool{0: true}
	explain := func(w int) {
		for ; w != 0 && !explained[w]; w = m.writes[w].prev {
			explained[w] = true
		}
	}
	for _, r := range m.regions {
		for _, w := range r.last {
			explain(w)
		}
	}
	for _, lost := range m.lost {
		for w := range lost {
			explain(w)
		}
	}
	if !m.cfg.full && m.cfg.breakage == sound {
		return "" // what an update overwrote is not known: only convergence is promised
	}
	// What a delete removed was removed on purpose, and nothing is lost with the delete when
	// a row of a later generation, or one that came in before the delete was known, outlives it.
	for w := range m.writes {
		if !m.writes[w].row {
			explain(w)
		}
	}
	for w := range m.writes {
		if !explained[w] {
			return fmt.Sprintf("lost: write %d of %s vanished without a record", w, m.writes[w].key)
		}
	}
	return ""
}
