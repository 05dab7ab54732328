package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/proxy"
	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
)

// nodes is how many servers a NATS cluster of the harness has.
const nodes = 3

// natsBinary is the real nats-server, built at most once per process.
var natsBinary struct {
	once sync.Once
	room *Room
	path string
	err  error
}

// NATSServer builds nats-server from the module that this module depends on and returns
// the path of the binary.
func NATSServer() (string, error) {
	natsBinary.once.Do(func() {
		root, err := ModuleRoot()
		if err != nil {
			natsBinary.err = err
			return
		}
		if natsBinary.room, natsBinary.err = NewRoom(); natsBinary.err != nil {
			return
		}
		natsBinary.path = filepath.Join(natsBinary.room.Dir, "nats-server")
		cmd := exec.Command("go", "build", "-o", natsBinary.path, "github.com/nats-io/nats-server/v2")
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			natsBinary.err = fmt.Errorf("build nats-server: %w: %s", err, out)
		}
	})
	return natsBinary.path, natsBinary.err
}

// newNATSCluster prepares the servers of one JetStream cluster in the room; none runs yet.
// They do not tell clients of each other, so that every connection stays behind its proxy.
func newNATSCluster(r *Room) ([]*NATS, error) {
	if _, err := NATSServer(); err != nil {
		return nil, err
	}
	var list []*NATS
	var peers []string
	for i := range nodes {
		n, err := NewNATS(r, fmt.Sprintf("nats%d", i+1))
		if err != nil {
			return nil, err
		}
		port, err := pgcluster.FreePort()
		if err != nil {
			return nil, err
		}
		list, peers = append(list, n), append(peers, fmt.Sprintf("127.0.0.1:%d", port))
	}
	for i, n := range list {
		if err := n.writeNode(i, list, peers); err != nil {
			closeNodes(list)
			return nil, err
		}
	}
	return list, nil
}

func closeNodes(list []*NATS) {
	for _, n := range list {
		n.Close()
	}
}

// writeNode writes the settings of node i. It dials each other node through a proxy, and tells them the
// address of one to dial it by: so all of its routes can be made slow.
func (n *NATS) writeNode(i int, list []*NATS, peers []string) error {
	front, err := proxy.New(peers[i])
	if err != nil {
		return err
	}
	n.Routes = append(n.Routes, front)
	var routes []string
	for j := range list {
		if j == i {
			continue
		}
		px, err := proxy.New(peers[j])
		if err != nil {
			return err
		}
		n.Routes, list[j].Routes = append(n.Routes, px), append(list[j].Routes, px)
		routes = append(routes, "nats://"+px.Addr())
	}
	text := fmt.Sprintf(`server_name: n%d
listen: "127.0.0.1:%d"
jetstream { store_dir: %q, max_file_store: %d, sync_interval: always }
cluster { name: harness, listen: %q, advertise: %q, no_advertise: true, routes: [%s] }
`, i+1, n.Port, n.Store, n.max, peers[i], front.Addr(), strings.Join(routes, ", "))
	n.conf = filepath.Join(filepath.Dir(n.Store), "nats.conf")
	if err := os.WriteFile(n.conf, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write settings of nats: %w", err)
	}
	return nil
}

// startNode starts one server of a cluster and waits until it listens; whether the cluster
// has a leader is another question.
func (n *NATS) startNode(ctx context.Context) error {
	bin, err := NATSServer()
	if err != nil {
		return err
	}
	if n.proc, err = StartProcess(Spec{Name: "nats", Path: bin, Args: []string{"-c", n.conf}, Log: n.Log}); err != nil {
		return err
	}
	return Poll(ctx, 30*time.Second, 20*time.Millisecond, func(context.Context) (bool, string, error) {
		if !n.Running() {
			return false, "", fmt.Errorf("start nats: it ended with code %d, see %s", n.proc.ExitCode(), n.Log)
		}
		c, _, err := natsClient(n.Addr())
		if err != nil {
			return false, "nats to answer", nil
		}
		c.Close()
		return true, "", nil
	})
}

// nodeAddrs are the addresses of all nodes, past every proxy.
func (p *Pair) nodeAddrs() string {
	var out []string
	for _, n := range p.Nodes {
		out = append(out, n.Addr())
	}
	return strings.Join(out, ",")
}

// clusterBrokers starts three servers, waits until JetStream has a leader, and returns the
// nats settings of each region. The links are A-nats1 to A-nats3, and the same for B.
func (p *Pair) clusterBrokers(ctx context.Context) (map[string]map[string]any, error) {
	var err error
	if p.Nodes, err = newNATSCluster(p.room); err != nil {
		return nil, err
	}
	for _, n := range p.Nodes {
		if err := n.Start(ctx); err != nil {
			return nil, err
		}
	}
	if err := p.waitLeader(ctx); err != nil {
		return nil, err
	}
	out := map[string]map[string]any{}
	for _, r := range p.Regions() {
		var urls []string
		for i, n := range p.Nodes {
			px, err := p.link(fmt.Sprintf("%s-nats%d", r.Side, i+1), n.Addr())
			if err != nil {
				return nil, err
			}
			urls = append(urls, "nats://"+px.Addr())
		}
		out[r.Name] = map[string]any{"nats.url": strings.Join(urls, ","), "nats.replicas": nodes}
	}
	return out, nil
}

func (p *Pair) waitLeader(ctx context.Context) error {
	return Poll(ctx, 60*time.Second, 100*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		c, js, err := natsClient(p.nodeAddrs())
		if err != nil {
			return false, err.Error(), nil
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if _, err := js.AccountInfo(ctx); err != nil {
			return false, "jetstream to have a leader: " + err.Error(), nil
		}
		return true, "", nil
	})
}
