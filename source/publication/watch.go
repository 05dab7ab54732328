// Package publication watches what this region publishes. Tables leave a publication without a word when they are
// dropped, a name may come to mean another table, and a publication can be altered so that it leaves out
// deletes, rows or columns. What is lost that way is in no stream: a Watch notices it, publishes and copies
// again what it may, and says the rest.
package publication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/wal"
)

// ErrNotSelected says that a table is not one that setup would publish.
var ErrNotSelected = errors.New("the table is not selected, or cannot be published")

// Config is what a Watch needs. All fields but Renamed and Asked are required.
type Config struct {
	Publication string
	Selected    func(wal.RelationName) bool
	Copies      bool // whether rows are copied without being asked for
	// Do runs f on a session of the local server, alone.
	Do func(ctx context.Context, f func(context.Context, *pgx.Conn) error) error
	// Republish publishes a table that was made anew, as setup does, and calls note within its transaction. It
	// waits for locks for a moment only. Errors: ErrNotSelected.
	Republish func(ctx context.Context, c *pgx.Conn, n wal.RelationName, note func(pgx.Tx) error) error
	Renamed   func()             // called when names of tables have changed
	Asked     func()             // called when a copy was asked for
	Public    func(error) string // an error's text without what it may quote of a row
	Log       *slog.Logger
}

// Watch remembers what was published. Look and LookAtSchemas are called from one goroutine; all other methods may be
// called from any.
type Watch struct {
	cfg Config

	altered string // what alteredSQL said last; Look's
	due     time.Time
	schemas schemaNames // LookAtSchemas'

	// whole is a horizon of a time at which everything was published that is to be; wholeKnown: there is one. Look's.
	whole      tombstone.Horizon
	wholeKnown bool

	mu     sync.Mutex
	known  map[wal.RelationName]uint32 // published tables, and their OIDs; nil before the first look
	stored map[wal.RelationName]uint32 // known and lost, as the database holds them
	lost   map[wal.RelationName]uint32 // selected tables that were published and are not now
	narrow narrowing
	// left is what was left out last; unsaved: the database does not say so yet; leftKnown: what it says is known.
	left               leftOut
	unsaved, leftKnown bool
	// missed are tables of which changes were left out that the database was not told of yet.
	missed map[wal.RelationName]struct{}
	unable map[wal.RelationName]time.Time // since when keys of a table could not be computed

	storing sync.Mutex // held while left is stored
}

// New makes a Watch that has seen nothing yet.
func New(cfg Config) *Watch {
	for _, f := range []*func(){&cfg.Renamed, &cfg.Asked} {
		if *f == nil {
			*f = func() {}
		}
	}
	return &Watch{cfg: cfg, unable: map[wal.RelationName]time.Time{}}
}

// Forget forgets what was seen, as a new process does. Nothing is looked at meanwhile.
func (w *Watch) Forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known, w.stored, w.lost, w.narrow = nil, nil, nil, narrowing{}
	w.left, w.unsaved, w.leftKnown, w.missed = leftOut{}, false, false, nil
	w.unable = map[wal.RelationName]time.Time{}
	w.altered, w.due, w.schemas = "", time.Time{}, nil
}

// Incomplete says which tables are selected and not, or not in full, in the publication, and what to do; "" for none.
func (w *Watch) Incomplete() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if text := w.narrow.text(w.cfg.Publication); text != "" {
		return text
	}
	if w.left != (leftOut{}) {
		return "changes of " + w.left.table.String() + " were left out, because " + w.left.why + ": " +
			"see the log, then run pgwaltz resync; pgwaltz keys names the rows that only one region has"
	}
	if n, ok := first(w.lost); ok {
		return "table " + n.String() + " is selected and not published any more: run pgwaltz setup, or leave it out with tables.exclude"
	}
	return ""
}

// first is the first of some tables by name.
func first(tables map[wal.RelationName]uint32) (wal.RelationName, bool) {
	var low wal.RelationName
	for n := range tables {
		if low.Name == "" || n.String() < low.String() {
			low = n
		}
	}
	return low, low.Name != ""
}

// copyTable asks for a copy of one table.
func (w *Watch) copyTable(ctx context.Context, c tablecopy.Execer, n wal.RelationName) error {
	if !w.cfg.Copies {
		return nil
	}
	if _, err := c.Exec(ctx, tablecopy.RequestSQL([]wal.RelationName{n})); err != nil {
		return fmt.Errorf("ask for a copy of %s: %w", n, err)
	}
	w.cfg.Asked()
	return nil
}
