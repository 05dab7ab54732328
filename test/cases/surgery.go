package cases

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// surgery is the family slot, stream, store.
func (x *run) surgery(ctx context.Context, s Step) error {
	side, rest := cutSide(s.Arg)
	r, err := x.p.Region(side)
	if err != nil {
		return err
	}
	f := strings.Fields(rest)
	if len(f) == 0 {
		return fmt.Errorf("--@%s %s: what?", s.Name, side)
	}
	switch s.Name {
	case "slot":
		return x.slot(ctx, r, f)
	case "store":
		return x.store(r, f)
	}
	st, err := x.p.Stream(r)
	if err != nil {
		return err
	}
	defer st.Close()
	switch f[0] {
	case "purge":
		return st.Purge(ctx)
	case "delete":
		return st.Delete(ctx)
	case "delete-msg":
		if len(f) < 2 {
			return errors.New("delete message: which?")
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return fmt.Errorf("read message number: %w", err)
		}
		return st.DeleteMessage(ctx, n)
	case "limit":
		return st.Configure(ctx, func(c *jetstream.StreamConfig) {
			for _, o := range f[1:] {
				if e := limit(c, o); e != nil && err == nil {
					err = e
				}
			}
		})
	case "reorder":
		return reorder(ctx, st, f[1:])
	case "unique-ids":
		n, err := st.DuplicateIDs(ctx)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d messages share their id with another one", n)
		}
		return err
	case "publish", "publish-raw":
		return publishBad(ctx, st, f[1:])
	case "replay":
		return replay(ctx, st, f[1:])
	case "forge":
		return forge(ctx, st, x.p.Other(r).Name, f[1:])
	case "acknowledge":
		return acknowledge(ctx, st, f[1:])
	case "overlap":
		return st.Overlap(ctx)
	case "stale-publish":
		return st.StalePublish(ctx)
	}
	return fmt.Errorf("operate on stream: unknown operation %s", f[0])
}

func limit(c *jetstream.StreamConfig, option string) error {
	k, v, _ := strings.Cut(option, "=")
	var err error
	switch k {
	case "max_msgs":
		c.MaxMsgs, err = strconv.ParseInt(v, 10, 64)
	case "max_bytes":
		c.MaxBytes, err = strconv.ParseInt(v, 10, 64)
	case "max_age":
		c.MaxAge, err = time.ParseDuration(v)
	case "duplicates":
		c.Duplicates, err = time.ParseDuration(v)
	case "storage":
		c.Storage = jetstream.FileStorage
		if v == "memory" {
			c.Storage = jetstream.MemoryStorage
		}
	case "retention":
		c.Retention = map[string]jetstream.RetentionPolicy{"limits": jetstream.LimitsPolicy, "interest": jetstream.InterestPolicy, "workqueue": jetstream.WorkQueuePolicy}[v]
	case "discard":
		c.Discard = jetstream.DiscardNew
		if v == "old" {
			c.Discard = jetstream.DiscardOld
		}
	default:
		return fmt.Errorf("set limit %q: unknown", option)
	}
	return err
}

// reorder reads `last 4 as 2,1,4,3`.
func reorder(ctx context.Context, st *harness.Stream, f []string) error {
	if len(f) != 4 || f[0] != "last" || f[2] != "as" {
		return errors.New("reorder stream: want last N as 2,1,4,3")
	}
	var order []int
	for _, p := range strings.Split(f[3], ",") {
		n, err := strconv.Atoi(p)
		if err != nil {
			return fmt.Errorf("read order: %w", err)
		}
		order = append(order, n)
	}
	if strconv.Itoa(len(order)) != f[1] {
		return fmt.Errorf("reorder stream: %s messages, but an order of %d", f[1], len(order))
	}
	return st.Reorder(ctx, order)
}

// store reads `delete`, `bitflip`, `truncate N`.
func (x *run) store(r *harness.Region, f []string) error {
	dir := x.p.StoreDir(r)
	stream := "PGWALTZ_" + x.vars["cluster"] + "_" + r.Name
	switch f[0] {
	case "delete":
		return harness.DeleteStore(dir)
	case "copy", "restore":
		kept := dir + ".copy"
		if len(f) > 1 {
			kept = dir + "." + f[1]
		}
		if f[0] == "copy" {
			return harness.CopyStore(dir, kept)
		}
		return harness.CopyStore(kept, dir)
	case "unplug":
		return harness.Unplug(dir)
	case "tmpfs", "remount":
		if len(f) < 2 {
			return errors.New("put store on a tmpfs: of how many MB?")
		}
		mb, err := strconv.Atoi(f[1])
		if err != nil {
			return fmt.Errorf("read size in MB: %w", err)
		}
		return x.p.StoreTmpfs(r, mb)
	case "bitflip":
		return harness.FlipBit(dir, stream)
	case "truncate":
		n := int64(1024)
		if len(f) > 1 {
			var err error
			if n, err = strconv.ParseInt(f[1], 10, 64); err != nil {
				return fmt.Errorf("read size: %w", err)
			}
		}
		return harness.Truncate(dir, stream, n)
	}
	return fmt.Errorf("operate on store: unknown operation %s", f[0])
}

// slot reads `drop`, `create [plugin]`, `advance`, `hold`, `release`, `freeze`.
func (x *run) slot(ctx context.Context, r *harness.Region, f []string) error {
	name := "pgwaltz_" + r.Name
	switch f[0] {
	case "drop":
		return harness.Poll(ctx, 10*time.Second, 50*time.Millisecond, func(ctx context.Context) (bool, string, error) {
			err := x.psql(ctx, r, "\\o /dev/null\nselect pg_drop_replication_slot('"+name+"')")
			if err != nil && strings.Contains(err.Error(), "is active") {
				return false, "slot " + name + " to be free", nil
			}
			return err == nil, "", err
		})
	case "create":
		plugin := "pgoutput"
		if len(f) > 1 {
			plugin = f[1]
		}
		return x.psql(ctx, r, "\\o /dev/null\nselect pg_create_logical_replication_slot('"+name+"', '"+plugin+"')")
	case "advance":
		return x.psql(ctx, r, "\\o /dev/null\nselect pg_replication_slot_advance('"+name+"', pg_current_wal_lsn())")
	case "hold":
		p, err := r.Cluster.HoldSlot(ctx, r.Database, name, "pgwaltz")
		if err != nil {
			return err
		}
		x.state.holders[r.Side] = p
		x.later(p.Kill)
		return harness.Poll(ctx, 10*time.Second, 50*time.Millisecond, func(ctx context.Context) (bool, string, error) {
			got, err := x.rows(ctx, r.Side, "select active from pg_replication_slots where slot_name = '"+name+"'")
			return got == "t", "slot " + name + " to be active", err
		})
	case "release", "freeze":
		p := x.state.holders[r.Side]
		if p == nil {
			return fmt.Errorf("%s slot: nobody holds it", f[0])
		}
		if f[0] == "freeze" {
			p.Freeze()
			return nil
		}
		p.Kill()
		return nil
	}
	return fmt.Errorf("operate on slot: unknown operation %s", f[0])
}

func (x *run) streamField(ctx context.Context, r *harness.Region, field string) (string, error) {
	st, err := x.p.Stream(r)
	if err != nil {
		return "", err
	}
	defer st.Close()
	info, err := st.Info(ctx)
	if err != nil {
		return "", err
	}
	c := info.Config
	values := map[string]string{
		"messages": fmt.Sprint(info.State.Msgs), "bytes": fmt.Sprint(info.State.Bytes),
		"first_seq": fmt.Sprint(info.State.FirstSeq), "last_seq": fmt.Sprint(info.State.LastSeq),
		"storage": c.Storage.String(), "retention": c.Retention.String(), "discard": c.Discard.String(),
		"max_age": c.MaxAge.String(), "duplicates": fmt.Sprint(int(c.Duplicates.Seconds())), "max_bytes": fmt.Sprint(c.MaxBytes), "max_msgs": fmt.Sprint(c.MaxMsgs),
		"deny_delete": fmt.Sprint(c.DenyDelete), "deny_purge": fmt.Sprint(c.DenyPurge), "consumers": fmt.Sprint(info.State.Consumers),
	}
	v, ok := values[field]
	if !ok {
		return "", fmt.Errorf("read stream field %s: unknown", field)
	}
	return strings.ToLower(v), nil
}

// streamLeader is the number of the node that leads a region's stream.
func (x *run) streamLeader(ctx context.Context, side string) (string, error) {
	r, err := x.p.Region(side)
	if err != nil {
		return "", err
	}
	st, err := x.p.Stream(r)
	if err != nil {
		return "", err
	}
	defer st.Close()
	return st.Leader(ctx)
}
