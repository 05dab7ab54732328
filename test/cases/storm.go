package cases

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// storm reads `TABLE keys=10 writes=1000 seed=1` and `TABLE explained`. It needs a table
// made by --@std and a cut link: both regions write at once, every write has an id of its
// own in column v, and each region's writes of a key form one chain. Explained then holds
// when the final row of each key is the end of one chain, and the end of the other one
// stands in the audit log of both regions as the loser.
func (x *run) storm(ctx context.Context, arg string) error {
	f := strings.Fields(arg)
	if len(f) == 2 && f[1] == "explained" {
		return x.stormExplained(ctx, f[0])
	}
	keys, writes, seed := 10, 1000, uint64(1)
	for _, o := range f[min(1, len(f)):] {
		k, v, _ := strings.Cut(o, "=")
		n, err := strconv.Atoi(v)
		if err != nil {
			return fmt.Errorf("read %s: %w", o, err)
		}
		switch k {
		case "keys":
			keys = n
		case "writes":
			writes = n
		case "seed":
			seed = uint64(n)
		default:
			return fmt.Errorf("read storm: unknown option %s", k)
		}
	}
	if len(f) == 0 || !identRE.MatchString(f[0]) {
		return fmt.Errorf("read storm %q: want TABLE keys=10 writes=1000 seed=1", arg)
	}
	errs := make([]error, len(x.p.Regions()))
	tips := make([]map[int]string, len(x.p.Regions()))
	var both sync.WaitGroup
	for i, r := range x.p.Regions() {
		both.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			tips[i], errs[i] = stormRegion(ctx, r, f[0], keys, writes, rnd)
		})
	}
	both.Wait()
	for i, r := range x.p.Regions() {
		if errs[i] != nil {
			return errs[i]
		}
		for k, v := range tips[i] {
			x.vars[fmt.Sprintf("storm.%s.%d", r.Side, k)] = v
		}
	}
	x.vars["storm.keys"] = strconv.Itoa(keys)
	return nil
}

// stormRegion writes and returns the last write of each key it touched; "" is a delete.
func stormRegion(ctx context.Context, r *harness.Region, table string, keys, writes int, rnd *rand.Rand) (map[int]string, error) {
	c, err := r.Cluster.Connect(ctx, r.Database)
	if err != nil {
		return nil, err
	}
	defer c.Close(ctx)
	tips := map[int]string{}
	for n := range writes {
		k := 1 + rnd.IntN(keys)
		wid := fmt.Sprintf("%s-%d", r.Name, n)
		if rnd.IntN(5) == 0 {
			if _, err := c.Exec(ctx, "delete from "+table+" where id = $1", k); err != nil {
				return nil, fmt.Errorf("storm on %s: %w", r.Side, err)
			}
			tips[k] = ""
			continue
		}
		_, err := c.Exec(ctx, `insert into `+table+` as t(id, v, big, version, updated_at, origin_node) values ($1, $2, '', 1, clock_timestamp(), $3)
on conflict (id) do update set v = excluded.v, version = t.version + 1, updated_at = excluded.updated_at, origin_node = excluded.origin_node`, k, wid, r.Name)
		if err != nil {
			return nil, fmt.Errorf("storm on %s: %w", r.Side, err)
		}
		tips[k] = wid
	}
	return tips, nil
}

func (x *run) stormExplained(ctx context.Context, table string) error {
	keys, _ := strconv.Atoi(x.vars["storm.keys"])
	if keys == 0 {
		return fmt.Errorf("check storm: there was none")
	}
	final := map[int]string{}
	losers := map[string]map[string]bool{}
	for _, r := range x.p.Regions() {
		c, err := r.Cluster.Connect(ctx, r.Database)
		if err != nil {
			return err
		}
		defer c.Close(ctx)
		rows, err := c.Query(ctx, "select id, v from "+table)
		if err != nil {
			return err
		}
		var id int
		var v string
		if _, err := pgx.ForEachRow(rows, []any{&id, &v}, func() error { final[id] = v; return nil }); err != nil {
			return err
		}
		losers[r.Side] = map[string]bool{}
		rows, err = c.Query(ctx, `select coalesce(key->>'id',''), coalesce(local_row->>'v',''), coalesce(remote_row->>'v',''), coalesce(winner,'') from pgwaltz.conflict where table_name = $1`, table)
		if err != nil {
			return err
		}
		var key, a, b, winner string
		if _, err := pgx.ForEachRow(rows, []any{&key, &a, &b, &winner}, func() error {
			// A lost delete has no image of its own: a row that the other side won speaks for it.
			losers[r.Side][key+"/"+a], losers[r.Side][key+"/"+b], losers[r.Side][key+"/won "+winner] = true, true, true
			return nil
		}); err != nil {
			return err
		}
	}
	for k := 1; k <= keys; k++ {
		tipA, okA := x.vars[fmt.Sprintf("storm.A.%d", k)]
		tipB, okB := x.vars[fmt.Sprintf("storm.B.%d", k)]
		got := final[k]
		if !(okA && got == tipA) && !(okB && got == tipB) && (okA || okB) {
			return fmt.Errorf("key %d ends as %q, but the last writes were %q on A and %q on B", k, got, tipA, tipB)
		}
		if !okA || !okB || tipA == tipB {
			continue
		}
		lost, winner := tipA, x.p.B.Name
		if got == tipA {
			lost, winner = tipB, x.p.A.Name
		}
		if lost == "" {
			lost = "won " + winner
		}
		for side, have := range losers {
			if !have[strconv.Itoa(k)+"/"+lost] {
				return fmt.Errorf("key %d: the lost write %q is not in the audit log of %s", k, lost, side)
			}
		}
	}
	return nil
}
