package cutover

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// A session that is lost, or a context that ends, while the server commits: what was taken is given back on a new session.
func TestPauseCommitUnknown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		cut  bool // else the context ends
	}{{"session lost", true}, {"context ends", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			name := p.s.Config().Database
			pgtest.Exec(t, p.s, `create role `+name+`_app login`, `create table item (a int primary key)`, `grant insert on item to `+name+`_app`)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var w *cutter
			conn, err := pg.Connect(ctx, p.eu, pg.Options{Region: "eu", Role: "cutover", Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				w = &cutter{Conn: conn, cut: c.cut}
				return w, err
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close(context.Background()) })
			p.Source.Conn = conn
			committed := false
			w.commit = func() {
				// The answer is kept back until others see the pause.
				committed = seen(t, p.s)
				if !c.cut {
					cancel()
				}
			}
			_, err = p.takeWhole(ctx, Pausing{Except: []string{"postgres"}, Hold: time.Hour})
			if err == nil || !strings.Contains(err.Error(), "writes are given back") || !committed {
				t.Errorf("%v, committed %t", err, committed)
			}
			if s, err := hold.Load(t.Context(), p.s); err != nil || s == nil || s.Paused {
				t.Errorf("%+v %v", s, err)
			}
			if got := text(t, p.s, `has_table_privilege('`+name+`_app', 'item', 'insert')`); got != "true" {
				t.Error("the application may not write")
			}
		})
	}
}

// seen waits until writes are paused.
func seen(t *testing.T, conn *pgx.Conn) bool {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if s, err := hold.Load(t.Context(), conn); err == nil && s != nil && s.Paused {
			return true
		}
	}
	return false
}

// cutter calls commit behind the statement of that name, whose answer never comes: the connection is closed, or ends with the context.
type cutter struct {
	net.Conn
	cut    bool
	commit func()
	gone   atomic.Bool
}

func (c *cutter) Write(b []byte) (int, error) {
	if c.commit == nil || !strings.Contains(string(b), "commit\x00") {
		return c.Conn.Write(b)
	}
	c.gone.Store(true)
	n, err := c.Conn.Write(b)
	c.commit()
	return n, err
}

func (c *cutter) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		switch {
		case !c.gone.Load() || err != nil:
			return n, err
		case c.cut:
			return 0, net.ErrClosed
		}
	}
}

// A destination that is lost, and made anew: writes at the source are given back all the same, behind finish with force. What the lost one had is forgotten with
// force only.
func TestDestinationMadeAnew(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	anew := func() {
		t.Helper()
		p.Destination.Sys.SystemID++
		if _, err := p.paused(t.Context()); err == nil {
			t.Error("a step goes on with another destination")
		}
	}
	p.take()
	anew()
	if gave, err := p.ResumeWrite(t.Context(), false); !gave || err != nil {
		t.Fatal(gave, err)
	}
	p.o.Destination = p.Destination.ID()
	p.take()
	if err := hold.Finish(t.Context(), p.Source.Conn); err != nil {
		t.Fatal(err)
	}
	anew()
	var unready *NotReadyError
	if gave, err := p.ResumeWrite(t.Context(), false); gave || !errors.As(err, &unready) {
		t.Fatal(gave, err)
	}
	if out, err := p.Abort(t.Context(), true); !out.Gave || err != nil {
		t.Fatalf("%+v %v", out, err)
	}
	if s, err := hold.Load(t.Context(), p.s); s != nil || err != nil {
		t.Fatalf("%+v %v", s, err)
	}
	p.o.Destination = p.Destination.ID()
	p.take()
	anew()
	if out, err := p.Abort(t.Context(), false); !out.Gave || !errors.As(err, &unready) {
		t.Fatalf("%+v %v", out, err)
	}
	if s, err := hold.Load(t.Context(), p.s); s == nil || s.Paused || err != nil {
		t.Fatalf("%+v %v", s, err)
	}
	if out, err := p.Abort(t.Context(), true); out.Gave || err != nil {
		t.Fatalf("%+v %v", out, err)
	}
}
