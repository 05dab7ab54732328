package harness

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Fleet holds the two clusters that many pairs share one after another: a pair gets a
// fresh database in each, which is far quicker than fresh clusters. A fleet is used by
// one goroutine at a time.
type Fleet struct {
	Room  *Room
	bin   Binaries
	conf  ClusterConfig
	a, b  *Cluster
	count int
}

// NewFleet finds PostgreSQL; the clusters start with the first pair.
func NewFleet(conf ClusterConfig) (*Fleet, error) {
	bin, err := FindBinaries()
	if err != nil {
		return nil, err
	}
	room, err := NewRoom()
	if err != nil {
		return nil, err
	}
	return &Fleet{Room: room, bin: bin, conf: conf}, nil
}

func (f *Fleet) clusters(ctx context.Context) error {
	if f.a != nil {
		return nil
	}
	f.count++
	var made [2]*Cluster
	for i, name := range []string{"a", "b"} {
		conf := f.conf
		conf.Name = fmt.Sprintf("%s%d", name, f.count)
		k, err := f.NewCluster(conf)
		if err == nil {
			err = k.Start(ctx)
		}
		if err != nil {
			if k != nil {
				k.Close()
			}
			if made[0] != nil {
				made[0].Close()
			}
			return err
		}
		made[i] = k
	}
	f.a, f.b = made[0], made[1]
	return nil
}

var digits = regexp.MustCompile(`[0-9]+$`)

// NewCluster makes a further cluster in the fleet's room; the caller closes it. Clusters
// whose names differ only in trailing digits come from one template and therefore share
// their system identifier.
func (f *Fleet) NewCluster(c ClusterConfig) (*Cluster, error) {
	return newClusterFrom(f.Room, f.bin, c, digits.ReplaceAllString(c.Name, ""))
}

// Pair makes two fresh databases of the given name in the shared clusters, and the
// processes around them. Nothing but the clusters (and NATS, in the external topology)
// runs yet.
func (f *Fleet) Pair(ctx context.Context, name string, o PairOptions) (*Pair, error) {
	if err := f.clusters(ctx); err != nil {
		return nil, err
	}
	for _, k := range []*Cluster{f.a, f.b} {
		c, err := k.Connect(ctx, "postgres")
		if err != nil {
			return nil, fmt.Errorf("connect to cluster %s: %w", k.Name, err)
		}
		_, err = c.Exec(ctx, `create database "`+name+`"`)
		_ = c.Close(ctx)
		if err != nil {
			return nil, fmt.Errorf("create database %s: %w", name, err)
		}
	}
	return newPair(ctx, f, name, o)
}

// Recycle cleans the shared clusters after a pair: connections, slots, prepared
// transactions, origins, roles and the database itself go. When that does not work, or
// dirty says that the clusters themselves were changed, they are thrown away.
func (f *Fleet) Recycle(ctx context.Context, database string, dirty bool) {
	if f.a == nil {
		return
	}
	if !dirty {
		var errs []error
		for _, k := range []*Cluster{f.a, f.b} {
			errs = append(errs, sweep(ctx, k, database))
		}
		if errors.Join(errs...) == nil {
			return
		}
	}
	f.Discard()
}

// Discard throws the shared clusters away; the next pair gets new ones.
func (f *Fleet) Discard() {
	for _, k := range []*Cluster{f.a, f.b} {
		if k != nil {
			k.Close()
		}
	}
	f.a, f.b = nil, nil
}

func sweep(ctx context.Context, k *Cluster, database string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := k.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	var gids []string
	if err := c.QueryRow(ctx, `select coalesce(array_agg(gid), '{}') from pg_prepared_xacts where database = current_database()`).Scan(&gids); err != nil {
		return err
	}
	for _, g := range gids {
		if _, err := c.Exec(ctx, "rollback prepared '"+strings.ReplaceAll(g, "'", "''")+"'"); err != nil {
			return err
		}
	}
	_ = c.Close(ctx)
	admin, err := k.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	err = Poll(ctx, 10*time.Second, 50*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		_, err := admin.Exec(ctx, `select pg_terminate_backend(pid) from pg_stat_activity where datname <> 'postgres' and pid <> pg_backend_pid()`)
		if err != nil {
			return false, "", err
		}
		if _, err := admin.Exec(ctx, `select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active`); err != nil {
			return false, "slots to be free", nil
		}
		var left int
		err = admin.QueryRow(ctx, `select count(*) from pg_replication_slots`).Scan(&left)
		return left == 0, "slots to be free", err
	})
	if err != nil {
		return err
	}
	for _, q := range []string{
		`select pg_replication_origin_drop(roname) from pg_replication_origin`,
		`drop database "` + database + `" with (force)`,
	} {
		if _, err := admin.Exec(ctx, q); err != nil {
			return err
		}
	}
	var roles []string
	if err := admin.QueryRow(ctx, `select coalesce(array_agg(rolname::text), '{}') from pg_roles where rolname <> 'postgres' and rolname !~ '^pg_'`).Scan(&roles); err != nil {
		return err
	}
	for _, r := range roles {
		if _, err := admin.Exec(ctx, `drop role "`+strings.ReplaceAll(r, `"`, `""`)+`"`); err != nil {
			return err
		}
	}
	return nil
}

// Close stops the clusters and removes the room.
func (f *Fleet) Close() {
	f.Discard()
	_ = f.Room.Close()
}

// Special replaces the shared clusters by two of the given kinds; Recycle with dirty set
// gets rid of them.
func (f *Fleet) Special(ctx context.Context, a, b ClusterConfig) error {
	f.Discard()
	f.count++
	a.Name, b.Name = fmt.Sprintf("a%d", f.count), fmt.Sprintf("b%d", f.count)
	ka, err := f.NewCluster(a)
	if err != nil {
		return err
	}
	f.a = ka
	kb, err := f.NewCluster(b)
	if err != nil {
		return err
	}
	f.b = kb
	if err := ka.Start(ctx); err != nil {
		return err
	}
	return kb.Start(ctx)
}
