package sidecar

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/preflight"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/wal"
)

// verbRules asks a region for what decides conflicts there.
const verbRules = "rules"

const (
	// rulesWait is how long a peer's answer is waited for. What it said last holds while it says nothing.
	rulesWait = 2 * time.Second
	// rulesGrace is for how long, from the begin of a term on, copies of tables wait for a peer that could not be asked.
	rulesGrace = time.Minute
)

// otherRules is what the peers say of what decides conflicts there, in this term. told, refused and due belong to the goroutine that
// looks at tables.
type otherRules struct {
	told    map[string]preflight.Rules // as they said last
	refused map[string]bool            // peers whose answer could not be read
	due     map[wal.RelationName]bool  // tables that differ, and are noted to be copied behind that

	mu    sync.Mutex
	heard map[string]bool // peers that were asked, whatever they answered; the status knows what comes of it
	since time.Time       // the begin of the term
}

func (r *otherRules) forget() {
	r.told, r.refused, r.due = map[string]preflight.Rules{}, map[string]bool{}, map[wal.RelationName]bool{}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard, r.since = map[string]bool{}, time.Now()
}

// note takes note of peers that were asked, behind the look at tables that counts their answers.
func (r *otherRules) note(peers []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range peers {
		r.heard[p] = true
	}
}

// waits returns a peer that was not asked yet, and is worth waiting for; "" for none.
func (r *otherRules) waits(peers []string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.IndexFunc(peers, func(p string) bool { return !r.heard[p] }); i >= 0 && time.Since(r.since) < rulesGrace {
		return peers[i]
	}
	return ""
}

// sayRules answers a peer.
func (s *Sidecar) sayRules(context.Context, string, []byte) ([]byte, error) {
	return json.Marshal(preflight.RulesOf(s.cfg))
}

// askRules asks the peers that can be reached, and returns them. One that does not know the question has no rules that are known.
func (s *Sidecar) askRules(ctx context.Context) (asked []string) {
	for _, p := range s.cfg.PeerNames() {
		if !s.reachable(p) {
			continue
		}
		asked = append(asked, p)
		data, err := s.requestRules(ctx, p)
		if err != nil {
			s.log.Debug("ask for rules", "peer", p, "reason", publicMessage(err))
			continue
		}
		s.hearRules(p, data)
	}
	return asked
}

func (s *Sidecar) requestRules(ctx context.Context, peer string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, rulesWait)
	defer cancel()
	return s.broker.Request(ctx, peer, verbRules, nil)
}

// hearRules takes a peer's answer. What cannot be read changes nothing: this region's own tables are looked at all the same. Each
// change of the rules may have tables copied, so it comes from the peer's budget.
func (s *Sidecar) hearRules(peer string, data []byte) {
	r := &s.rules
	now, err := preflight.ReadRules(data)
	if err != nil {
		if !r.refused[peer] {
			s.log.Warn("what a peer says of how it decides conflicts cannot be read; its tables are not compared", "peer", peer, "reason", err)
		}
		r.refused[peer] = true
		return
	}
	delete(r.refused, peer)
	if was, ok := r.told[peer]; ok && (reflect.DeepEqual(was, now) || !s.mayCopy(peer)) {
		return
	}
	r.told[peer] = now
}

// dueAlike notes that tables whose conflicts are decided otherwise elsewhere are to be copied when they are not (notYet). The status
// names them already, so none is copied before.
func (s *Sidecar) dueAlike(ctx context.Context, c *pgx.Conn, found preflight.Findings) error {
	differ := map[wal.RelationName]bool{}
	var fresh []wal.RelationName
	for _, f := range found {
		if f.Code == preflight.StampsDiffer && !differ[f.Relation] {
			differ[f.Relation] = true
			if !s.rules.due[f.Relation] {
				fresh = append(fresh, f.Relation)
			}
		}
	}
	if len(fresh) > 0 {
		if err := names.SetDue(ctx, c, fresh); err != nil {
			return err
		}
		s.due.Add(int64(len(fresh)))
	}
	s.rules.due = differ
	return nil
}

// differs says why a table is not copied because of how other regions decide its conflicts, as far as they were heard of; "" where it
// can be.
func (s *Sidecar) differs(n wal.RelationName) string {
	if p := s.rules.waits(s.cfg.PeerNames()); p != "" {
		return fmt.Sprintf("region %s was not asked yet by which columns it decides conflicts", p)
	}
	name := n.String()
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.tables, func(t status.Table) bool { return t.Code == preflight.StampsDiffer && t.Table == name }) {
		return "another region decides conflicts of it by other columns, or in another order: see tables"
	}
	return ""
}
