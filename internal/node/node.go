// Package node says whose database this is, and which database each peer has. It owns table pgwaltz.node, which setup
// writes once, pgwaltz.home and pgwaltz.peer.
package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// Schema creates the table; the schema pgwaltz must exist. It may be run again.
const Schema = `create table if not exists pgwaltz.node (
  region     text primary key,
  cluster    text not null,
  token      uuid not null,
  created_at timestamptz not null default now()
)`

// Row names the database; the zero Row when nobody has named it.
type Row struct{ Region, Cluster string }

// Load reads the row.
func Load(ctx context.Context, q pg.Querier) (Row, error) {
	var r Row
	err := q.QueryRow(ctx, `select region, cluster from pgwaltz.node order by created_at limit 1`).Scan(&r.Region, &r.Cluster)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return Row{}, fmt.Errorf("read pgwaltz.node: %w", err)
	}
	return r, nil
}

// Token is the secret that what a sidecar writes into its own WAL begins with. Nobody else may read
// the table.
func Token(ctx context.Context, q pg.Querier, region string) ([]byte, error) {
	var token string
	if err := q.QueryRow(ctx, `select token::text from pgwaltz.node where region = $1`, region).Scan(&token); err != nil {
		return nil, fmt.Errorf("read pgwaltz.node: %w", err)
	}
	return []byte(token), nil
}

// InsertSQL names the database, once and for all. The token tells two databases apart that were
// given the same region's name.
func InsertSQL(r Row) string {
	return fmt.Sprintf("insert into pgwaltz.node (region, cluster, token) values (%s, %s, pg_catalog.gen_random_uuid()) on conflict do nothing",
		pg.Literal(r.Region), pg.Literal(r.Cluster))
}

// Differs says how the database contradicts what it is taken for; "" when it does not.
func (r Row) Differs(want Row) string {
	if r.Region == "" || r == want {
		return ""
	}
	return fmt.Sprintf("this database is region %q of cluster %q, the configuration says region %q of cluster %q",
		r.Region, r.Cluster, want.Region, want.Cluster)
}
