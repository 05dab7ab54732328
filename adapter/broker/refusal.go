package broker

import (
	"log/slog"
	"sync"
	"time"
)

// refusals keep a peer that says the same refused thing again and again from filling the log.
// The zero value is ready; it may be used from any goroutine.
type refusals struct {
	mu   sync.Mutex
	said map[string]time.Time
}

const (
	refusalEvery = time.Minute
	maxRefusals  = 256
)

// say logs a refusal once a minute for each peer and reason.
func (r *refusals) say(log *slog.Logger, what, peer string, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := what + peer + why.Error()
	if time.Since(r.said[key]) < refusalEvery {
		return
	}
	if r.said == nil || len(r.said) >= maxRefusals {
		r.said = map[string]time.Time{}
	}
	r.said[key] = time.Now()
	log.Warn(what, "peer", peer, "reason", why.Error())
}
