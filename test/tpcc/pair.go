package tpcc

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
	"github.com/pgwaltz/pgwaltz/test/harness"
)

// Pair is two sidecars between two databases that hold the same tables, in both directions, with the settings that a user
// gets who gives none.
type Pair struct {
	Left, Right *harness.Sidecar
	room        *harness.Room
	sides       [2]side
}

type side struct {
	cluster  *harness.Cluster
	database string
	slot     string
}

// NewPair prepares two sidecars for the tables of TPC-C and a table mark, with their files in a folder of its own. copied: the
// right database is filled by the left one.
func NewPair(dir string, left, right *harness.Cluster, database string, copied bool, set map[string]string) (*Pair, error) {
	return NewPairOf(append(Qualified(), "public.mark"), dir, left, right, database, copied, set)
}

// NewPairOf is NewPair for other tables, given by schema and name.
func NewPairOf(tables []any, dir string, left, right *harness.Cluster, database string, copied bool, set map[string]string) (*Pair, error) {
	port, err := pgcluster.FreePort()
	if err != nil {
		return nil, err
	}
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	p := &Pair{room: &harness.Room{Dir: dir}}
	for i, s := range []struct {
		region, peer string
		c            *harness.Cluster
		out          **harness.Sidecar
	}{{"left", "right", left, &p.Left}, {"right", "left", right, &p.Right}} {
		mode := "off"
		if copied {
			mode = "auto"
		}
		slot := filepath.Base(dir) + "_" + s.region
		p.sides[i] = side{s.c, database, slot}
		conf := map[string]any{
			"cluster": "tpcc", "region": s.region, "copy.mode": mode, "peers": []any{map[string]any{"region": s.peer}},
			"postgres.dsn":  fmt.Sprintf("host=%s port=%d user=postgres dbname=%s sslmode=disable", filepath.Dir(s.c.DataDir), s.c.Port, database),
			"postgres.slot": slot, "tables.include": tables, "nats.store_dir": filepath.Join(dir, s.region, "nats"), "log.level": "info",
		}
		if i == 0 {
			conf["nats.listen"] = listen
		} else {
			conf["nats.dial"] = []any{"nats-leaf://" + listen}
		}
		sc, err := harness.NewSidecar(p.room, s.region, s.region, conf)
		if err != nil {
			return nil, err
		}
		for k, v := range set {
			if err := sc.SetText(k, v); err != nil {
				return nil, err
			}
		}
		*s.out = sc
	}
	return p, nil
}

// Sidecars are both.
func (p *Pair) Sidecars() []*harness.Sidecar { return []*harness.Sidecar{p.Left, p.Right} }

// Setup runs `pgwaltz setup` on both.
func (p *Pair) Setup(ctx context.Context) error {
	return errors.Join(p.Left.Setup(ctx), p.Right.Setup(ctx))
}

// Start starts both processes and does not wait.
func (p *Pair) Start() error { return errors.Join(p.Left.Start(), p.Right.Start()) }

// Alive returns an error when one of them has ended.
func (p *Pair) Alive() error {
	for _, s := range p.Sidecars() {
		if proc := s.Process(); proc != nil && !proc.Running() {
			return fmt.Errorf("sidecar %s ended with code %d: %s", s.Region, proc.ExitCode(), harness.TailFile(s.LogPath, 4))
		}
	}
	return nil
}

// Close ends both and drops their slots.
func (p *Pair) Close(ctx context.Context) error {
	var errs []error
	for i, s := range p.Sidecars() {
		if s == nil {
			continue
		}
		if s.Running() {
			if _, err := s.Stop(ctx, 15*time.Second); err != nil {
				errs = append(errs, err)
				s.Kill()
			}
		}
		errs = append(errs, dropSlot(ctx, p.sides[i]))
	}
	return errors.Join(errs...)
}

func dropSlot(ctx context.Context, s side) error {
	conn, err := s.cluster.Connect(ctx, s.database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return harness.Poll(ctx, 30*time.Second, 100*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		_, err := conn.Exec(ctx, `select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active`, s.slot)
		if err != nil {
			return false, "", err
		}
		if _, err := conn.Exec(ctx, `select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1`, s.slot); err != nil {
			return false, "slot " + s.slot + " to be free: " + err.Error(), nil
		}
		return true, "", nil
	})
}
