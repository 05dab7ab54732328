package cases

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

var sessionRE = regexp.MustCompile(`(?s)^(\w+)(?:\s+([AB]))?(\s+async)?\s*:\s*(.*)$`)

// session reads `L A: sql` (opens session L on A when it is new), `L: sql`, `L async: sql`
// (does not wait), `L close`.
func (x *run) session(ctx context.Context, arg string) error {
	f := strings.Fields(arg)
	if len(f) == 2 && f[1] == "close" {
		s := x.state.sessions[f[0]]
		if s == nil {
			return fmt.Errorf("close session %s: it is not open", f[0])
		}
		delete(x.state.sessions, f[0])
		s.Close()
		return nil
	}
	m := sessionRE.FindStringSubmatch(arg)
	if m == nil {
		return fmt.Errorf("read session %q: want NAME A: sql", arg)
	}
	s := x.state.sessions[m[1]]
	if s == nil {
		if m[2] == "" {
			return errors.New("open session: A or B?")
		}
		r, err := x.p.Region(m[2])
		if err != nil {
			return err
		}
		if s, err = r.Cluster.OpenSession(r.Database); err != nil {
			return err
		}
		name := m[1]
		x.state.sessions[name] = s
		x.later(func() {
			if x.state.sessions[name] == s {
				s.Close()
			}
		})
	}
	if m[3] != "" {
		return s.Send(m[4] + ";")
	}
	_, err := s.Run(ctx, m[4])
	return err
}
