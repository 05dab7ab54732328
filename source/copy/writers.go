package copy

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// writersGone reports whether the transactions that were writing to a table when its copy was
// first looked at are over. What they wrote before the table was published is in nobody's
// stream, and no snapshot shows it before they commit. Other tables are copied meanwhile.
func (c *Copier) writersGone(ctx context.Context, j *Job) (bool, error) {
	waiting, known := c.writers[j.Table]
	if known && len(waiting) == 0 {
		return true, nil
	}
	var now []string
	err := c.cfg.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		now, err = writers(ctx, conn, j.Table)
		return err
	})
	if err != nil {
		return false, err
	}
	if !known {
		waiting = now
		if len(now) > 0 {
			c.cfg.Log.Info("the copy waits for transactions that have written to the table", "relation", j.Table.String(), "transactions", len(now))
		}
	}
	c.writers[j.Table] = both(waiting, now)
	return len(c.writers[j.Table]) == 0, nil
}

// writers names the open transactions that may have written to a table, its partitions and its
// children, also prepared ones. Our own that apply what a peer has made are left out: it is in
// the peer's stream.
func writers(ctx context.Context, c *pgx.Conn, t wal.RelationName) ([]string, error) {
	rows, err := c.Query(ctx, `with recursive tree(oid) as (
  select t.oid from pg_catalog.pg_class t join pg_catalog.pg_namespace n on n.oid = t.relnamespace where n.nspname = $1 and t.relname = $2
  union select i.inhrelid from pg_catalog.pg_inherits i join tree on tree.oid = i.inhparent
)
select distinct l.virtualtransaction from pg_catalog.pg_locks l join tree on tree.oid = l.relation
left join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.locktype = 'relation' and l.granted and l.pid is distinct from pg_catalog.pg_backend_pid()
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
  and l.mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  and not coalesce(a.usename = current_user and pg_catalog.starts_with(a.application_name, 'pgwaltz_') and a.application_name like '%\_apply\_%', false)`, t.Schema, t.Name)
	if err != nil {
		return nil, fmt.Errorf("look for writers of %s: %w", t, err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for writers of %s: %w", t, err)
	}
	return out, nil
}

// both returns what is in a and in b.
func both(a, b []string) []string {
	has := make(map[string]bool, len(b))
	for _, v := range b {
		has[v] = true
	}
	out := []string{}
	for _, v := range a {
		if has[v] {
			out = append(out, v)
		}
	}
	return out
}
