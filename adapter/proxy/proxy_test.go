package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo answers each line with itself.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

type line struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *line {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &line{c, bufio.NewReader(c)}
}

func (l *line) say(text string, limit time.Duration) error {
	if _, err := io.WriteString(l, text+"\n"); err != nil {
		return err
	}
	return l.hear(text, limit)
}

func (l *line) hear(text string, limit time.Duration) error {
	l.SetReadDeadline(time.Now().Add(limit))
	got, err := l.r.ReadString('\n')
	if err != nil {
		return err
	}
	if got != text+"\n" {
		return errors.New("got " + got)
	}
	return nil
}

func newProxy(t *testing.T) *Proxy {
	t.Helper()
	p, err := New(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestProxyCutAndHeal(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	c := dial(t, p.Addr())
	if err := c.say("one", time.Second); err != nil {
		t.Fatal(err)
	}
	if err := c.say("six", time.Second); err != nil { // each way counts what it has carried before it reads on
		t.Fatal(err)
	}
	if n := p.Carried(); !p.Up() || n < 8 || n > 16 {
		t.Errorf("up %t, %d bytes carried", p.Up(), n)
	}
	p.Cut()
	if err := c.say("two", time.Second); err == nil {
		t.Fatal("a cut link answered")
	}
	if p.Up() {
		t.Error("a cut link is up")
	}
	if c, err := net.Dial("tcp", p.Addr()); err == nil { // a reset may come before Dial has returned
		defer c.Close()
		if err := (&line{c, bufio.NewReader(c)}).say("three", time.Second); err == nil {
			t.Fatal("a cut link let somebody in")
		}
	}
	p.Heal()
	if err := dial(t, p.Addr()).say("four", time.Second); err != nil {
		t.Fatal(err)
	}
}

func TestProxyHoldKeepsBytes(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	c := dial(t, p.Addr())
	if err := c.say("one", time.Second); err != nil {
		t.Fatal(err)
	}
	p.Hold(Down)
	err := c.say("two", 200*time.Millisecond)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v, want silence", err)
	}
	p.Heal()
	if err := c.hear("two", 2*time.Second); err != nil {
		t.Fatalf("held bytes were lost: %v", err)
	}
}

func TestProxyDropSpoilsConnection(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	c := dial(t, p.Addr())
	p.Drop(Up)
	if err := c.say("one", 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v, want silence", err)
	}
	p.Heal()
	if err := c.say("two", time.Second); err == nil {
		t.Fatal("a connection that lost bytes lives on")
	}
}

func TestProxyDropAnswers(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	c := dial(t, p.Addr())
	p.DropAnswers(2, 50*time.Millisecond)
	if err := c.say("HPUB one", time.Second); err != nil {
		t.Fatal(err)
	}
	if err := c.say("HPUB two", 2*time.Second); err == nil {
		t.Fatal("the second answer came through")
	}
}

func TestProxyThrottle(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	p.Throttle(1000)
	c := dial(t, p.Addr())
	start := time.Now()
	if err := c.say(string(make([]byte, 400)), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 300*time.Millisecond {
		t.Fatalf("400 bytes at 1000 bytes/s took %s", d)
	}
}

func TestProxyFlap(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	c := dial(t, p.Addr())
	if err := c.say("one", time.Second); err != nil {
		t.Fatal(err)
	}
	p.CloseConns()
	if err := c.say("two", time.Second); err == nil {
		t.Fatal("a closed connection answered")
	}
	if err := dial(t, p.Addr()).say("three", time.Second); err != nil {
		t.Fatal(err)
	}
}

// What is lost is sent again later, and nothing that follows overtakes it.
func TestLose(t *testing.T) {
	t.Parallel()
	p, err := New(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	l := dial(t, p.Addr())
	if err := l.say("before", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	p.Lose(0.5)
	began := time.Now()
	for _, text := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"} {
		if err := l.say(text, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < resendAfter { // one in a million: all twenty came at once
		t.Errorf("ten lines and their echoes took %s, nothing was lost", took)
	}
	p.Lose(0)
	if err := l.say("after", 10*time.Second); err != nil {
		t.Fatal(err)
	}
}
