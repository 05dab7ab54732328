package harness

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/proxy"
	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
)

// Topology says where the NATS server is.
type Topology string

// Embedded: each sidecar has its server, region a listens and the others dial it, each through a
// proxy. External: one server process, all sidecars dial it through proxies of their own.
// Clustered: three server processes of one JetStream cluster, and streams with three copies.
const (
	Embedded  Topology = "embedded"
	External  Topology = "external"
	Clustered Topology = "cluster"
)

// Valid reports whether the topology is one of the three.
func (t Topology) Valid() bool { return t == Embedded || t == External || t == Clustered }

// PairOptions are the choices for one pair of regions.
type PairOptions struct {
	Topology Topology
	Three    bool              // a third region C joins the two
	NATSMB   int               // put the external server's store on a tmpfs of this size (needs root)
	ProxyPG  bool              // put a proxy between each sidecar and its PostgreSQL
	Settings map[string]string // configuration of all sidecars: dotted key -> YAML value
}

// Region is one PostgreSQL with its sidecar.
type Region struct {
	Side     string // A, B or C
	Name     string // a, b or c
	Cluster  *Cluster
	Database string
	Sidecar  *Sidecar
	Standby  *Sidecar // a second identical sidecar, nil until asked for

	settings map[string]any
}

// Pair is two regions, or three, with everything between them. It is used by one goroutine, except
// for the methods of its parts that say otherwise.
type Pair struct {
	Name     string
	Topology Topology
	A, B     *Region
	C        *Region // nil with two regions
	NATS     *NATS   // only in the external topology
	Nodes    []*NATS // only in the cluster topology
	Links    map[string]*proxy.Proxy
	Listen   string // where region a listens in the embedded topology

	fleet  *Fleet
	room   *Room
	mounts map[string]bool // stores on a tmpfs
}

func newPair(ctx context.Context, f *Fleet, name string, o PairOptions) (_ *Pair, err error) {
	room, err := NewRoom()
	if err != nil {
		return nil, err
	}
	p := &Pair{Name: name, Topology: o.Topology, Links: map[string]*proxy.Proxy{}, fleet: f, room: room}
	if p.Topology == "" {
		p.Topology = Embedded
	}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	p.A = &Region{Side: "A", Name: "a", Cluster: f.a, Database: name}
	p.B = &Region{Side: "B", Name: "b", Cluster: f.b, Database: name}
	if o.Three {
		p.C = &Region{Side: "C", Name: "c", Cluster: f.c, Database: name}
	}
	broker, err := p.brokers(ctx, o.NATSMB)
	if err != nil {
		return nil, err
	}
	for _, r := range p.Regions() {
		addr := r.Cluster.Addr()
		if o.ProxyPG {
			px, err := p.link(r.Side+"-pg", addr)
			if err != nil {
				return nil, err
			}
			addr = px.Addr()
		}
		r.settings = map[string]any{
			"postgres.slot": "pgwaltz_" + r.Name, "postgres.unbounded_wal": true,
			"cluster": strings.ReplaceAll(name, "_", "-"), "region": r.Name,
			"postgres.dsn":   r.Cluster.DSNVia(addr, name),
			"peers":          p.peerSettings(r),
			"nats.store_dir": filepath.Join(room.Dir, r.Name, "nats"),
			"log.level":      "debug",
		}
		for k, v := range broker[r.Name] {
			r.settings[k] = v
		}
		if r.Sidecar, err = NewSidecar(room, r.Name, r.Name, r.settings); err != nil {
			return nil, err
		}
		for k, v := range o.Settings {
			if err := r.Sidecar.SetText(k, v); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// brokers starts what the topology needs and returns the nats settings of each region.
func (p *Pair) brokers(ctx context.Context, storeMB int) (map[string]map[string]any, error) {
	if p.Topology == Clustered {
		return p.clusterBrokers(ctx)
	}
	if p.Topology == External {
		var err error
		if p.NATS, err = NewNATS(p.room, "nats"); err != nil {
			return nil, err
		}
		if storeMB > 0 {
			if err := p.NATS.Tmpfs(storeMB); err != nil {
				return nil, err
			}
		}
		if err := p.NATS.Start(ctx); err != nil {
			return nil, err
		}
		out := map[string]map[string]any{}
		for _, r := range p.Regions() {
			px, err := p.link(r.Side+"-nats", p.NATS.Addr())
			if err != nil {
				return nil, err
			}
			out[r.Name] = map[string]any{"nats.url": "nats://" + px.Addr()}
		}
		return out, nil
	}
	port, err := pgcluster.FreePort()
	if err != nil {
		return nil, err
	}
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	p.Listen = listen
	px, err := p.link("link", listen)
	if err != nil {
		return nil, err
	}
	out := map[string]map[string]any{
		"a": {"nats.listen": listen},
		"b": {"nats.dial": []any{"nats-leaf://" + px.Addr()}},
	}
	if p.C != nil { // links must not form a ring: b and c meet through a
		px, err := p.link("C-link", listen)
		if err != nil {
			return nil, err
		}
		out["c"] = map[string]any{"nats.dial": []any{"nats-leaf://" + px.Addr()}}
	}
	return out, nil
}

// peerSettings are the peers of a region in its configuration.
func (p *Pair) peerSettings(r *Region) []any {
	var out []any
	for _, x := range p.Peers(r) {
		out = append(out, map[string]any{"region": x.Name})
	}
	return out
}

func (p *Pair) link(name, target string) (*proxy.Proxy, error) {
	px, err := proxy.New(target)
	if err != nil {
		return nil, err
	}
	p.Links[name] = px
	return px, nil
}

// Regions lists all regions, A first.
func (p *Pair) Regions() []*Region {
	if p.C == nil {
		return []*Region{p.A, p.B}
	}
	return []*Region{p.A, p.B, p.C}
}

// Peers lists the other regions.
func (p *Pair) Peers(r *Region) []*Region {
	return slices.DeleteFunc(p.Regions(), func(x *Region) bool { return x == r })
}

// Other is the first peer of a region.
func (p *Pair) Other(r *Region) *Region {
	if r == p.A {
		return p.B
	}
	return p.A
}

// Region finds a region by its letter.
func (p *Pair) Region(side string) (*Region, error) {
	switch strings.ToUpper(side) {
	case "A":
		return p.A, nil
	case "B":
		return p.B, nil
	case "C":
		if p.C != nil {
			return p.C, nil
		}
	}
	return nil, fmt.Errorf("find region %q: there are %d", side, len(p.Regions()))
}

// Dir is the pair's temporary folder.
func (p *Pair) Dir() string { return p.room.Dir }

// NatsLinks are the links that a cut between the regions concerns.
func (p *Pair) NatsLinks() []*proxy.Proxy {
	if p.Topology == Embedded {
		out := []*proxy.Proxy{p.Links["link"]}
		if p.C != nil {
			out = append(out, p.Links["C-link"])
		}
		return out
	}
	var out []*proxy.Proxy
	for _, name := range slices.Sorted(maps.Keys(p.Links)) {
		if strings.Contains(name, "-nats") {
			out = append(out, p.Links[name])
		}
	}
	return out
}

// StandbyOf makes the second sidecar of a region: the same settings, a port and, embedded,
// a store of its own.
func (p *Pair) StandbyOf(r *Region) (*Sidecar, error) {
	if r.Standby != nil {
		return r.Standby, nil
	}
	s, err := NewSidecar(p.room, r.Name, r.Name+"-standby", nil)
	if err != nil {
		return nil, err
	}
	if err := s.copySettings(r.Sidecar); err != nil {
		return nil, err
	}
	if p.Topology == Embedded {
		s.Set("nats.store_dir", filepath.Join(p.room.Dir, r.Name+"-standby", "nats"))
	}
	r.Standby = s
	return s, nil
}

// Setup runs `pgwaltz setup` for all regions.
func (p *Pair) Setup(ctx context.Context) error {
	for _, r := range p.Regions() {
		if err := r.Sidecar.Setup(ctx); err != nil {
			return err
		}
	}
	return nil
}

// WaitReady waits until all sidecars answer, hold their slot and see their peers. It
// fails at once when one of them ends.
func (p *Pair) WaitReady(ctx context.Context, limit time.Duration) error {
	return Poll(ctx, limit, 50*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		for _, r := range p.Regions() {
			if !r.Sidecar.Running() {
				return false, "", fmt.Errorf("start sidecar %s: it ended with code %d: %s", r.Side, r.Sidecar.Process().ExitCode(), TailFile(r.Sidecar.LogPath, 5))
			}
			st, err := r.Sidecar.Status(ctx)
			if err != nil {
				return false, "sidecar " + r.Side + ": " + err.Error(), nil
			}
			if st.Outbound == nil || !st.Outbound.SlotActive {
				return false, "sidecar " + r.Side + " to hold its slot", nil
			}
			if !p.sees(r, st.Outbound.Peers) {
				return false, "sidecar " + r.Side + " to see its peers", nil
			}
		}
		return true, "", nil
	})
}

// sees reports whether the region's sidecar reaches the other regions: of three, all that it lists.
func (p *Pair) sees(_ *Region, peers []peer) bool {
	away := func(x peer) bool { return !x.Reachable }
	if p.C == nil {
		return slices.ContainsFunc(peers, func(x peer) bool { return x.Reachable })
	}
	return len(peers) > 0 && !slices.ContainsFunc(peers, away)
}

// HealAll heals every link.
func (p *Pair) HealAll() {
	for _, l := range p.Links {
		l.Heal()
	}
}

// Close ends everything the pair started; the shared clusters stay.
func (p *Pair) Close() {
	for _, r := range p.Regions() {
		if r == nil {
			continue
		}
		for _, s := range []*Sidecar{r.Sidecar, r.Standby} {
			if s != nil {
				s.Kill()
			}
		}
	}
	if p.NATS != nil {
		p.NATS.Close()
	}
	for _, n := range p.Nodes {
		n.Close()
	}
	for _, l := range p.Links {
		l.Close()
	}
	for dir := range p.mounts {
		_ = exec.Command("umount", "-l", dir).Run()
	}
	_ = p.room.Close()
}
