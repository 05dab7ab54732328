package main

import (
	"context"
	"fmt"
)

// The sweep drains about as many rows in other shapes: how does cost follow work? It runs when it is asked for.

const (
	sweepName = "sweep" // stands for all its workloads in -only
	sweepRows = 100_000 // at full scale
)

// sweep are its workloads.
func sweep() []Workload {
	var out []Workload
	for _, n := range []int{1, 10, 100, 1000, 10_000, 100_000} {
		out = append(out, Workload{
			Name: fmt.Sprintf("R%d", n), What: fmt.Sprintf("backlog, rows a transaction: %d", n), Kind: Drain, Must: "-", Sweep: true, Work: n,
			Base: func(Options) Base { return Base{Rows: 40} }, Write: writeRows(n),
		})
	}
	for _, n := range []int{1, 10, 100, 1000} {
		out = append(out, Workload{
			Name: fmt.Sprintf("T%d", n), What: fmt.Sprintf("backlog, one-row transactions, tables in turn: %d", n), Kind: Drain, Must: "-", Sweep: true, Work: n,
			Base: func(Options) Base { return Base{Rows: 40, Narrow: n} }, Write: writeTables(n),
		})
	}
	for n := 1; n <= 4; n++ {
		out = append(out, Workload{
			Name: fmt.Sprintf("P%d", n), What: fmt.Sprintf("backlog, one-row transactions, peers: %d", n), Kind: Drain, Must: "-", Sweep: true, Work: n, Peers: n,
			Base: func(Options) Base { return Base{Rows: 40} }, Write: writeRows(1),
		})
	}
	return out
}

// writeRows inserts in transactions of n rows; there is one at least.
func writeRows(n int) func(context.Context, *Rig, string, Options) (int, error) {
	return func(ctx context.Context, r *Rig, db string, o Options) (int, error) {
		times := max(o.count(sweepRows)/n, 1)
		return times * n, r.exec(ctx, r.Source, db, `set synchronous_commit = off`, fmt.Sprintf(`do $$ begin
  for i in 1..%d loop
    insert into users (username, email, password) select 'n' || i || '/' || k, 'n' || i || '/' || k || '@example.com', md5(k::text) from generate_series(1, %d) k;
    commit;
  end loop;
end $$`, times, n))
	}
}

// writeTables inserts one row a transaction, into one of n tables after the other.
func writeTables(n int) func(context.Context, *Rig, string, Options) (int, error) {
	return func(ctx context.Context, r *Rig, db string, o Options) (int, error) {
		rows := o.count(sweepRows)
		return rows, r.exec(ctx, r.Source, db, `set synchronous_commit = off`, fmt.Sprintf(`do $$ begin
  for i in 1..%d loop
    execute 'insert into narrow' || i %% %d + 1 || ' values ($1, 1)' using i;
    commit;
  end loop;
end $$`, rows, n))
	}
}
