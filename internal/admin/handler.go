package admin

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/internal/visible"
)

// Handler returns the endpoints; Run serves them, tests call it directly.
func (s *Server) Handler() http.Handler {
	metrics := s.cfg.Registry
	if metrics == nil {
		metrics = prometheus.NewRegistry()
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("/livez", s.livez)
	mux.HandleFunc("/readyz", s.readyz)
	mux.HandleFunc("/status", s.status)
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		text(w, http.StatusOK, "pgwaltz: /status /metrics /livez /readyz\n")
	})
	return readOnly(mux)
}

func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			text(w, http.StatusMethodNotAllowed, "only GET\n")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.Alive != nil {
		if err := s.cfg.Alive(); err != nil {
			text(w, http.StatusServiceUnavailable, "stuck: "+err.Error()+"\n")
			return
		}
	}
	text(w, http.StatusOK, "alive\n")
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	st := s.current()
	code := http.StatusServiceUnavailable
	switch st.State {
	case status.Replicating, status.CatchingUp, status.Parked, status.Standby:
		code = http.StatusOK
	}
	body := string(st.State) + "\n"
	if o := st.Outbound; o != nil {
		body += line("outbound", o.State, o.Reason)
	}
	for _, in := range st.Inbound {
		body += line("inbound "+in.Origin, in.State, in.Reason)
	}
	text(w, code, body)
}

func line(name string, state status.State, reason string) string {
	if reason != "" {
		reason = ": " + visible.Text(reason)
	}
	return fmt.Sprintf("%s %s%s\n", name, state, reason)
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	body, err := json.MarshalIndent(s.current(), "", "  ")
	if err != nil { // a float that JSON has no form for; never a reason to die
		text(w, http.StatusInternalServerError, "status cannot be encoded\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(visible.JSON(body), '\n')) // the client has gone, then
}

// current is the status; without a source of one, down.
func (s *Server) current() status.Status {
	if s.cfg.Status == nil {
		return status.Status{State: status.Down}
	}
	st := s.cfg.Status()
	if st.State == "" {
		st.State = status.Down
	}
	return st
}

func text(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, body) // the client has gone, then
}
