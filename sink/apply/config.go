package apply

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Config says whose changes are applied, and how.
type Config struct {
	Region string // this region
	Origin string // whose changes
	// Self: the changes are this region's own, published ones. They are in the tables
	// already; what is left is to record their entries, and to put right what a
	// remote change overwrote before the local one was known (self-merge).
	Self bool
	// Peer names the other region in audit rows of the self-merge.
	Peer string
	// Peers are all other regions.
	Peers []string
	// Silent reports whether a peer publishes nothing, so that no answer of it is waited for; nil says so of none.
	Silent func(peer string) bool
	// Connect opens the apply session: settings pinned, ordinary triggers switched off or
	// the restorer told to work, replication origin set up where granted.
	Connect func(ctx context.Context) (*pgx.Conn, error)
	// Replica: ordinary triggers do not fire in the apply session.
	Replica bool
	// Marker is the content of the logical message that marks every transaction as applied;
	// nil when the session carries a replication origin instead.
	Marker []byte
	Policy Policy
	// Selected says whether the configuration replicates a table; nil says so of all.
	Selected func(wal.RelationName) bool
	Index    *tombstone.Index
	// Named sees to it that the index knows the ledger of a table here under its name, before anything is decided by that; nil: it does.
	// It may wait for the catalog, in a session of its own.
	Named func(ctx context.Context, table uint32, name wal.RelationName) error
	// LockWait bounds each wait for a lock. It has to be well below the server's deadlock_timeout:
	// a session of the application that waits for us then never looks for a deadlock while we
	// wait. 0: the session's lock_timeout is left as it is.
	LockWait time.Duration
	// LockTimeout is how long a batch waits for locks in all, beginning again each time, before its
	// changes are tried one by one.
	LockTimeout time.Duration
	// Tracked says of which rows the server knows when this region wrote them.
	Tracked tombstone.Tracked
	// Parked says which keys have parked changes; shared by all appliers of the region. nil
	// makes one of its own.
	Parked *parked.Index
	// Suspects remembers which change was in hand when sessions ended; shared by the appliers of
	// the origin that follow each other. nil makes one of its own.
	Suspects *Suspects
	// Giants lets giant transactions take turns, Batches all others, those of the retriers among them; shared by
	// all appliers of the region. nil makes one of its own.
	Giants, Batches *Turns
	// Redact masks columns in the audit log; nil masks none.
	Redact *audit.Redactor
	// Barrier waits until this region's own changes that are committed by now are known, or
	// returns ErrOverdue; nil when nothing is published from here.
	Barrier func(ctx context.Context) error
	// Ordinary opens a session whose writes are this region's own, for the cascades of foreign keys
	// that are enforced for applied rows; nil when nothing is published from here.
	Ordinary func(ctx context.Context) (*pgx.Conn, error)
	// WaitStamped takes a snapshot and waits until this region's own changes that it shows
	// are stamped; self-merge only.
	WaitStamped func(ctx context.Context) (*tombstone.Snapshot, error)
	// Publishes says whether changes of a table are published from here, so that another region
	// may ask for its rows; nil: all are.
	Publishes func(wal.RelationName) bool
	// Copies is asked for copies of tables; nil when nothing is published from here.
	Copies Copies
	// Tell: this region publishes, so the other one is told of conflicts and gets repairs.
	Tell bool
	// Token begins the logical messages that carry them; only this sidecar knows it.
	Token []byte
	Log   *slog.Logger
}

// Copies asks for copies of tables of this region for its peers.
type Copies interface {
	// SetDue notes, in the open transaction of conn, that the rows and tombstones of tables are to be copied when it
	// has committed and they have the same stamp columns in all regions. Noting it again, or one twice, does no harm. Safe for concurrent use.
	SetDue(ctx context.Context, conn *pgx.Conn, tables []wal.RelationName) error
}

// Policy says for each table where stamps are and how they are compared.
type Policy interface {
	table(wal.RelationName) TablePolicy
	stampColumns(wal.RelationName) (version, updatedAt string)
}

// TablePolicy is the policy of one table.
type TablePolicy struct {
	Version, UpdatedAt string
	Order              conflict.Order
	Resolve            conflict.Policy
}

// PolicyFunc makes a Policy of a function.
type PolicyFunc func(wal.RelationName) TablePolicy

func (f PolicyFunc) table(n wal.RelationName) TablePolicy { return f(n) }

func (f PolicyFunc) stampColumns(n wal.RelationName) (string, string) {
	p := f(n)
	return p.Version, p.UpdatedAt
}

// Stats counts since the start of the process. Safe to read from anywhere.
type Stats struct {
	Transactions, Rows, Conflicts, Parked, Retries, Batches, Ordered atomic.Uint64
}
