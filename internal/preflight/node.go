package preflight

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

// node is the row of pgwaltz.node; empty when there is none.
type node struct{ region, cluster string }

func loadNode(ctx context.Context, q pg.Querier) (node, error) {
	var n node
	err := q.QueryRow(ctx, `select region, cluster from pgwaltz.node order by created_at limit 1`).Scan(&n.region, &n.cluster)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return node{}, fmt.Errorf("read pgwaltz.node: %w", err)
	}
	return n, nil
}

// differs says how the database contradicts the configuration; "" when it does not.
func (n node) differs(cfg *config.Config) string {
	if n.region == "" || n.region == cfg.Region && n.cluster == cfg.Cluster {
		return ""
	}
	return fmt.Sprintf("this database is region %q of cluster %q, the configuration says region %q of cluster %q",
		n.region, n.cluster, cfg.Region, cfg.Cluster)
}
