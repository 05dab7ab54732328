package sim

import (
	"math/rand/v2"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/conflict"
)

// Config is what one run is made of. Draw makes it from a seed.
type Config struct {
	Seed    uint64
	Regions int
	Tables  []tableConf
	Ops     int // local transactions of all regions together
	Faults  int

	Deletes, KeyChange, Giant, Copies bool
	Blind                             bool  // commits become visible late; nothing keeps rows from where none is
	Restore                           bool  // a database is restored to an earlier point
	Catalog                           bool  // look-ups in the server fail now and then
	Refuse                            bool  // tables refuse rows and deletes of appliers for a while
	Unique                            bool  // and rows that have what another row of the table has
	Skew                              int64 // microseconds by which the clocks differ at most
	Jumps                             bool
	Ahead                             bool // the clock is stored ahead of the slot, and reading begins there
	Forgetful                         bool // the server saves the slot rarely
	AtOnce                            bool // appliers send small batches with their commit
	Lazy                              bool // what the stream acknowledges is on disk later
	Async                             bool // appliers commit without waiting for the disk
	Marker                            bool // echoes are known by a message, else by an origin
	Mode                              checkpoint.Mode

	MaxPart, MaxFrame, FrameBytes int
	BatchRows                     int // rows of a batch of the applier
	Compress                      bool
	// Limits of the index (tombstone.Limits); 0 means the usual ones.
	IndexKeys, IndexOwn, IndexSegment, IndexHeld int
	Far                                          bool // the self-merge does not wait now and then for what is stamped late
	Window                                       int  // frames in flight to the stream
	Strict                                       bool // the oracle of the second decoding is on
	Break                                        Breakage
}

// tableConf is one replicated table.
type tableConf struct {
	Version, Time bool
	Full          bool // replica identity FULL, else the key only
	Mixed         bool // it is the other one in every second region
	Bump          bool // the version rises with every update
	Stale         bool // applications write old versions and times by hand
	Toast         bool // a column that is Unchanged in most updates
	Spelled       bool // the key is a numeric: several texts are one key
	Order         conflict.Order
	Keys          int
}

func (t tableConf) stampless() bool { return !t.Version && !t.Time }

// Breakage switches one rule off, to see that the oracle notices.
type Breakage uint8

const (
	Sound            Breakage = iota
	NoSkip                    // what the checkpoint covers is applied again
	NoChain                   // frames are taken by number alone
	NoTombstones              // deletes leave no tombstone
	ConfirmEarly              // the slot is told what is published, not what is applied
	SplitCommit               // the checkpoint is saved before the rows, in a commit of its own
	NoAudit                   // losers leave no record
	NoSelfMerge               // own deletes and lifted rows are not recorded
	ArrivalWins               // a loser is applied all the same
	AckEarly                  // a commit is acknowledged before it is on disk
	NoEchoFilter              // what an applier wrote is published again
	LossyPushback             // repairs are kept in memory only
	Restamp                   // a change that is published again is stamped again
	StaleTail                 // an incarnation goes on although a later one was lost
	RunsFall                  // a run of changes takes its last one by version, whatever the order of the table is
	HoldsByStamp              // the self-merge takes a row of equal version and time for its own
	MarkSuperseded            // the self-merge leaves the tombstone of a change that a later own one replaced
	SelfVersionFirst          // the self-merge compares stamps by version whatever the order of the table is
	MergedInMemory            // the slot is told of self-merges that are not on disk
	PartsUnordered            // the self-merge does not see that a later part replaced a change
	SelfSilent                // what the self-merge undoes is not told to anybody
	OldGraves                 // a row of generation 0 leaves the tombstone that it beat
	SameHistory               // a restored server is taken for the one that was
	GluedParts                // any part continues the transaction that is open
	BlindStamps               // a tombstone without a row gets the position at which it is written
	SameNumber                // frames of one number are one frame
	ClockInMemory             // the highest commit time in front of a confirmed position is not stored
	Unannounced               // an applier that puts a row where nothing was does not ask what came meanwhile
	NoDigests                 // a receiver takes large values that an update left alone from its own row
	ToldOne                   // a conflict that the self-merge finds is told to the first peer only
	ErrorsAreAnswers          // a look-up that fails means that nothing is known
	RowsGone                  // of a change that lacks a value the delete is taken to follow whenever its row is gone
	ParkedGivesWay            // what is set aside gives way to whatever comes under its key
	TrustsPeers               // a new incarnation begins behind what the peers say, whatever history that is of
	Unasked                   // who has sent a row with its commit does not ask for an entry behind it
	breakages
)

func (b Breakage) String() string {
	return [...]string{"sound", "no skip", "no chain", "no tombstones", "confirm early", "split commit", "no audit",
		"no self-merge", "arrival wins", "ack early", "no echo filter", "lossy pushback", "restamp", "stale tail", "runs fall", "holds by stamp", "mark superseded", "self version first", "merged in memory", "parts unordered", "self silent", "old tombstones", "same history", "glued parts", "blind stamps", "same number", "clock in memory", "unannounced", "no digests", "told one", "errors are answers", "rows gone", "parked gives way", "trusts peers", "unasked"}[b]
}

// Draw makes the configuration of a seed.
func Draw(seed uint64) Config {
	r := rand.New(rand.NewPCG(seed, 0x5eed))
	large := rand.New(rand.NewPCG(seed, 0xb16))
	later := rand.New(rand.NewPCG(seed, 0x5be11)) // what was added later moves no seed that does not have it
	yes := func(percent int) bool { return r.IntN(100) < percent }
	c := Config{
		Seed: seed, Regions: 2, Ops: 6 + r.IntN(30), Faults: r.IntN(8),
		Deletes: yes(75), KeyChange: yes(25), Giant: yes(15), Copies: yes(15),
		Async: yes(50), Marker: yes(50), Mode: checkpoint.Applied,
		MaxPart: 1 << 20, MaxFrame: 4096, FrameBytes: 1 << uint(8+r.IntN(6)), Compress: yes(50),
		Window: 1 + r.IntN(4), Strict: true,
	}
	if yes(35) {
		c.Regions = 3
	}
	if yes(25) {
		c.Mode = checkpoint.Adaptive
	}
	if yes(30) {
		c.MaxFrame = 600 // a header is half of it: many fragments
	}
	if c.Giant {
		c.MaxPart = 1200
	}
	if yes(50) {
		c.Skew, c.Jumps = 1+r.Int64N(3_600_000_000), yes(50)
	}
	for range 1 + r.IntN(2) {
		t := tableConf{Version: yes(75), Time: yes(75), Full: yes(75), Bump: yes(80), Stale: yes(25), Keys: 1 + r.IntN(4)}
		if yes(20) {
			t.Order = conflict.TimeFirst
		}
		t.Toast = t.Full && yes(40) || !t.Full && large.IntN(100) < 60
		t.Spelled = later.IntN(4) == 0
		c.Tables = append(c.Tables, t)
	}
	c.Blind = yes(50)
	if yes(8) {
		c.Restore = true
	}
	c.BatchRows = 1 << uint(1+r.IntN(10))
	c.Catalog = yes(30)
	if yes(30) { // beyond the limits of the index
		c.IndexKeys, c.IndexOwn, c.IndexSegment, c.IndexHeld = 1+r.IntN(4), 1+r.IntN(4), 1+r.IntN(4), 1+r.IntN(4)
	}
	c.Refuse = later.IntN(4) == 0
	c.Ahead = later.IntN(2) == 0
	c.Forgetful = later.IntN(3) == 0
	c.Far = rand.New(rand.NewPCG(seed, 0xfa2)).IntN(2) == 0
	c.AtOnce = rand.New(rand.NewPCG(seed, 0x0ce)).IntN(2) == 0
	return c
}
