package harness

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Fleet holds the clusters that many pairs share one after another: a pair gets a
// fresh database in each, which is far quicker than fresh clusters. A fleet is used by
// one goroutine at a time.
type Fleet struct {
	Room  *Room
	bin   Binaries
	conf  ClusterConfig
	a, b  *Cluster
	c     *Cluster // of a third region; made when a pair wants one
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

// thirdCluster starts the cluster of a third region, where none runs.
func (f *Fleet) thirdCluster(ctx context.Context) error {
	if f.c != nil {
		return nil
	}
	f.count++
	conf := f.conf
	conf.Name = fmt.Sprintf("c%d", f.count)
	k, err := f.NewCluster(conf)
	if err != nil {
		return err
	}
	if err := k.Start(ctx); err != nil {
		k.Close()
		return err
	}
	f.c = k
	return nil
}

// running are the clusters at hand.
func (f *Fleet) running() []*Cluster {
	var out []*Cluster
	for _, k := range []*Cluster{f.a, f.b, f.c} {
		if k != nil {
			out = append(out, k)
		}
	}
	return out
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
	used := []*Cluster{f.a, f.b}
	if o.Three {
		if err := f.thirdCluster(ctx); err != nil {
			return nil, err
		}
		used = append(used, f.c)
	}
	for _, k := range used {
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
		for _, k := range f.running() {
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
	for _, k := range f.running() {
		k.Close()
	}
	f.a, f.b, f.c = nil, nil, nil
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
		`drop database if exists "` + database + `" with (force)`,
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

// Special replaces the shared clusters by two or three of the given kinds; Recycle with dirty
// set gets rid of them.
func (f *Fleet) Special(ctx context.Context, kinds ...ClusterConfig) error {
	f.Discard()
	f.count++
	for i, place := range []**Cluster{&f.a, &f.b, &f.c}[:len(kinds)] {
		conf := kinds[i]
		conf.Name = fmt.Sprintf("%c%d", 'a'+i, f.count)
		k, err := f.NewCluster(conf)
		if err != nil {
			return err
		}
		*place = k
	}
	for _, k := range f.running() {
		if err := k.Start(ctx); err != nil {
			return err
		}
	}
	return nil
}
