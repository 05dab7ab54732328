package main

import (
	"context"
	"slices"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/sidecar"
	"github.com/pgwaltz/pgwaltz/internal/status"
)

// checkLink tries the way to the peers.
func checkLink(ctx context.Context, cfg *config.Config) preflight.Findings {
	if len(cfg.Peers) == 0 {
		return nil
	}
	link, err := sidecar.LinkConfig(cfg)
	if err != nil {
		return preflight.Findings{{Severity: preflight.Error, Code: "link", What: err.Error()}}
	}
	severity := map[broker.Grade]preflight.Severity{broker.Works: preflight.OK, broker.Doubtful: preflight.Warning, broker.Fails: preflight.Error}
	var out preflight.Findings
	st, away := fetchStatus(ctx, cfg)
	for _, p := range broker.Look(ctx, link, int64(cfg.Publish.MaxFrame), away == nil) {
		out = append(out, preflight.Finding{Severity: severity[p.Grade], Code: "link", What: p.About + ": " + p.What, Remedy: p.Remedy})
	}
	for _, t := range st.Tables { // only the sidecar that runs knows what the others are configured to do
		switch t.Code {
		case preflight.StampsDiffer:
			out = append(out, preflight.Finding{Severity: preflight.Error, Code: t.Code, What: t.Reason, Remedy: t.Remedy, Table: t.Table})
		case preflight.SelectionDiffers:
			out = append(out, preflight.Finding{Severity: preflight.Warning, Code: t.Code, What: t.Reason, Remedy: t.Remedy, Table: t.Table})
		}
	}
	return append(out, listening(cfg, st, away)...)
}

// listening asks the sidecar that runs here for the peers that nobody but they can reach: a region
// that only listens cannot dial them.
func listening(cfg *config.Config, st status.Status, away error) preflight.Findings {
	if !cfg.NATS.Embedded() || len(cfg.NATS.Dial) > 0 {
		return nil
	}
	if away != nil || st.Outbound == nil && len(st.Inbound) == 0 {
		return preflight.Findings{{Severity: preflight.OK, Code: "link", What: "peers: they dial this region; whether they come shows when the sidecar runs here"}}
	}
	var out preflight.Findings
	for _, p := range cfg.PeerNames() {
		f := preflight.Finding{Severity: preflight.Warning, Code: "link", What: "peers." + p + ": the sidecar that runs here does not hear of it",
			Remedy: "look at the sidecar of " + p + ", and whether it can reach " + cfg.NATS.Listen}
		if reachable(st, p) {
			f = preflight.Finding{Severity: preflight.OK, Code: "link", What: "peers." + p + ": the sidecar that runs here reaches it"}
		}
		out = append(out, f)
	}
	return out
}

func reachable(st status.Status, peer string) bool {
	if st.Outbound != nil {
		return slices.ContainsFunc(st.Outbound.Peers, func(p status.Peer) bool { return p.Region == peer && p.Reachable })
	}
	return slices.ContainsFunc(st.Inbound, func(in status.Inbound) bool {
		return in.Origin == peer && in.State != status.Partitioned && in.State != status.Down
	})
}
