package supervisor

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/native"
	"github.com/pgwaltz/pgwaltz/internal/fallback/pglogical"
)

// PlanPause works out what lets the region's subscriptions rest, or with on go on; it runs nothing. The slots at the peers keep the WAL
// meanwhile. In mode stream it refuses: there the process itself is what applies.
func PlanPause(ctx context.Context, conn *pgx.Conn, cfg *config.Config, on bool) (*fallback.Plan, error) {
	local, peers, err := pglogical.Look(ctx, conn, cfg, pglogical.Names{})
	if err != nil {
		return nil, err
	}
	mode := fallback.InEffect(cfg, local.Mode)
	p := &fallback.Plan{To: mode, Doing: "pause"}
	verb, why := "disable", "nothing is applied of what %s commits; its slot keeps the WAL"
	if on {
		p.Doing = "resume"
		verb, why = "enable", "what %s commits is applied again"
	}
	add := func(region string, done bool, sql string) {
		p.Add(done, fmt.Sprintf(why, region), sql)
	}
	switch {
	case mode == config.ModeStream:
		p.Refuse("mode_stream", "stop the process, and start it again", "the region is in mode stream: its process applies, and no subscription")
		return p, nil
	case local.Mode != nil && !local.Mode.Settled:
		p.Refuse("mode_cut_off", "pgwaltz mode switch "+string(mode), "%v", &fallback.HalfDoneError{Mode: mode})
		return p, nil
	}
	for _, peer := range peers {
		switch {
		case mode == config.ModePglogical && peer.Sub != nil:
			add(peer.Region, peer.Sub.Enabled == on, fmt.Sprintf("select pglogical.alter_subscription_%s(%s, true)", verb, pg.Literal(peer.Sub.Name)))
		case mode == config.ModeNative && peer.Peer.Sub != nil:
			add(peer.Region, peer.Peer.Sub.Enabled == on, "alter subscription "+pg.Quote(native.Name(cfg.Cluster, peer.Region))+" "+verb)
		}
	}
	if len(p.Statements) == 0 {
		p.Refuse("no_subscription", "pgwaltz mode show", "this region has no subscription")
	}
	return p, nil
}
