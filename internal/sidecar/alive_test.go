package sidecar

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/admin"
)

func TestAliveWhileTheLoopTurns(t *testing.T) {
	t.Parallel()
	var s Sidecar
	if err := s.alive(); err != nil {
		t.Errorf("before it begins: %v", err)
	}
	s.turn()
	if err := s.alive(); err != nil {
		t.Errorf("while it turns: %v", err)
	}
	s.turned.Store(time.Now().Add(-stuckAfter - time.Minute).UnixNano())
	if s.alive() == nil {
		t.Error("a loop that is stuck counts as alive")
	}
	answer := httptest.NewRecorder()
	admin.New(admin.Config{Alive: s.alive}).Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/livez", nil))
	if answer.Code != http.StatusServiceUnavailable || !strings.HasPrefix(answer.Body.String(), "stuck: ") {
		t.Errorf("/livez of a loop that is stuck: %d %q", answer.Code, answer.Body)
	}
}
