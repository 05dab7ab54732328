package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// Contender is one replicator in one job. The order of calls is Prepare, then (the
// history is written) Arm, Release, and Close in any case.
type Contender interface {
	Name() string
	// Prepare makes the slot and everything else, and leaves the contender at rest.
	Prepare(ctx context.Context) error
	// Arm does what may be done before the clock starts: processes and links are up, but
	// nobody reads the slot.
	Arm(ctx context.Context) error
	// Release lets it go. The clock starts when its walsender has the slot.
	Release(ctx context.Context) error
	// Slots are the names of its slots at the source, known after Prepare.
	Slots() []string
	// Alive returns an error when waiting on is in vain.
	Alive() error
	// Sidecars are its own processes by class; empty for what runs inside PostgreSQL.
	Sidecars() map[string]*harness.Process
	// Holder is the process id of a walsender that only keeps the slot busy.
	Holder() uint32
	// Close ends and removes everything, the slot too.
	Close(ctx context.Context) error
}

// site is where a contender works: one source database, and target databases of its own.
type site struct {
	rig    *Rig
	source string
	target string
	more   []place // further targets, each a peer of its own
	tables []string
	set    map[string]string // settings of the sidecars
	fill   bool              // the target is empty: copy what is there
	both   bool              // sidecars replicate in both directions
	binary string            // of the sidecars; empty: whatever harness.Product says
}

func newContender(name string, s site) (Contender, error) {
	switch name {
	case "native":
		return &native{site: s}, nil
	case "pglogical":
		return &pglogical{site: s}, nil
	case "pgwaltz", before:
		return &sidecars{site: s, name: name}, nil
	}
	return nil, fmt.Errorf("unknown contender %q", name)
}

// publication is made in every source database before any slot.
const publication = "bench"

func publicationSQL(tables []string) string {
	return `create publication ` + publication + ` for table ` + strings.Join(tables, ", ")
}

// place is a database of a cluster.
type place struct {
	c  *harness.Cluster
	db string
}

// targets are the databases of all peers.
func (s site) targets() []place { return append([]place{{s.rig.Target, s.target}}, s.more...) }

// inside is the part of a contender that runs within PostgreSQL.
type inside struct{}

func (inside) Arm(context.Context) error             { return nil }
func (inside) Alive() error                          { return nil }
func (inside) Sidecars() map[string]*harness.Process { return nil }
func (inside) Holder() uint32                        { return 0 }

// dropSlot waits until nobody reads the slot and drops it; a slot that is gone is fine.
func dropSlot(ctx context.Context, r *Rig, c *harness.Cluster, slot string) error {
	if slot == "" {
		return nil
	}
	conn, err := r.connect(ctx, c, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return harness.Poll(ctx, 30*time.Second, 100*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		_, err := conn.Exec(ctx, `select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active`, slot)
		if err != nil {
			return false, "", err
		}
		if _, err := conn.Exec(ctx, `select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1`, slot); err != nil {
			return false, "slot " + slot + " to be free: " + err.Error(), nil
		}
		return true, "", nil
	})
}
