package cases

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/proxy"
	"github.com/pgwaltz/pgwaltz/test/harness"
)

// linkStep is the family cut, heal, throttle, delay, lose, flap, dropacks.
func (x *run) linkStep(ctx context.Context, s Step) error {
	f := strings.Fields(s.Arg)
	switch s.Name {
	case "cut":
		if len(f) == 0 || f[0] == "both" {
			for _, l := range x.p.NatsLinks() {
				l.Cut()
			}
			return nil
		}
		return x.actLink(ctx, "cut", f[0], f[1:])
	case "heal":
		if len(f) == 0 {
			x.p.HealAll()
			return x.waitStep(ctx, "")
		}
		if f[0] == "all" {
			x.p.HealAll()
			return nil
		}
		l, _, err := x.link(f[0])
		if err != nil {
			return err
		}
		l.Heal()
		return nil
	}
	if len(f) < 2 {
		return fmt.Errorf("%s needs a link and a value", s.Name)
	}
	if node, ok := strings.CutPrefix(f[0], "nats."); ok && s.Name == "delay" {
		return x.delayNode(node, f[1])
	}
	l, _, err := x.link(f[0])
	if err != nil {
		return err
	}
	switch s.Name {
	case "lose":
		percent, err := strconv.ParseFloat(strings.TrimSuffix(f[1], "%"), 64)
		if err != nil {
			return fmt.Errorf("read share: %w", err)
		}
		l.Lose(percent / 100)
		return nil
	case "throttle":
		n, err := rate(f[1])
		if err != nil {
			return err
		}
		l.Throttle(n)
		return nil
	case "delay":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			return fmt.Errorf("read delay: %w", err)
		}
		l.Delay(d)
		return nil
	case "flap":
		var every, total time.Duration
		if len(f) == 5 && f[1] == "every" && f[3] == "for" {
			every, total = duration(f[2:3], 0), duration(f[4:5], 0)
		}
		if every <= 0 || total <= 0 {
			return fmt.Errorf("read %q: want LINK every 1s for 20s", s.Arg)
		}
		for end := time.Now().Add(total); time.Now().Before(end); {
			if err := harness.Pause(ctx, every); err != nil {
				return err
			}
			l.CloseConns()
		}
		return nil
	default: // dropacks LINK every 20 for 2s
		if len(f) == 2 && f[1] == "off" {
			l.DropAnswers(0, 0)
			return nil
		}
		if len(f) == 5 && f[1] == "every" && f[3] == "for" {
			n, err := strconv.Atoi(f[2])
			if err == nil && n > 0 {
				l.DropAnswers(n, duration(f[4:5], time.Second))
				return nil
			}
		}
		return fmt.Errorf("read %q: want LINK every 20 for 2s, or LINK off", s.Arg)
	}
}

// delayNode makes everything slow that goes to one node of a NATS cluster or comes from it.
func (x *run) delayNode(node, text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("read delay: %w", err)
	}
	n, err := x.natsServer(node)
	if err != nil {
		return err
	}
	links := slices.Clone(n.Routes)
	for name, l := range x.p.Links {
		if strings.HasSuffix(name, "-nats"+node) {
			links = append(links, l)
		}
	}
	for _, l := range links {
		l.Delay(d)
	}
	return nil
}

// link finds a link by its name; A->B and B->A name the way the events of one region take
// and come with the direction to cut.
func (x *run) link(name string) (*proxy.Proxy, []proxy.Direction, error) {
	both := []proxy.Direction{proxy.Up, proxy.Down}
	if l, ok := x.p.Links[name]; ok {
		return l, both, nil
	}
	embedded := x.p.Topology == harness.Embedded
	switch name {
	case "A->B", "B->A":
		if x.p.Topology == harness.Clustered {
			return nil, nil, fmt.Errorf("cut %s: in a cluster name its links, A-nats1 to A-nats3", name)
		}
	}
	switch name {
	case "A->B":
		if embedded { // B dials A: what A says flows down
			return x.p.Links["link"], []proxy.Direction{proxy.Down}, nil
		}
		return x.p.Links["A-nats"], []proxy.Direction{proxy.Up}, nil
	case "B->A":
		if embedded {
			return x.p.Links["link"], []proxy.Direction{proxy.Up}, nil
		}
		return x.p.Links["B-nats"], []proxy.Direction{proxy.Up}, nil
	}
	var have []string
	for k := range x.p.Links {
		have = append(have, k)
	}
	return nil, nil, fmt.Errorf("find link %s: this case has %s", name, strings.Join(have, ", "))
}

// actLink cuts a link: LINK closes and refuses; LINK up, down, hold or A->B let nothing
// through without closing; drop throws away; close ends the connections once. With a
// duration the link is healed after it.
func (x *run) actLink(ctx context.Context, verb, name string, opts []string) error {
	l, dirs, err := x.link(name)
	if err != nil {
		return err
	}
	silent := verb == "hold" || strings.Contains(name, "->")
	drop := verb == "drop"
	for _, o := range opts {
		switch o {
		case "up":
			dirs, silent = []proxy.Direction{proxy.Up}, true
		case "down":
			dirs, silent = []proxy.Direction{proxy.Down}, true
		case "hold":
			silent = true
		case "drop":
			drop = true
		}
	}
	switch {
	case verb == "close":
		l.CloseConns()
	case drop:
		for _, d := range dirs {
			l.Drop(d)
		}
	case silent:
		for _, d := range dirs {
			l.Hold(d)
		}
	default:
		l.Cut()
	}
	if d := duration(opts, 0); d > 0 {
		defer l.Heal()
		return harness.Pause(ctx, d)
	}
	return nil
}

var rateRE = regexp.MustCompile(`^([0-9]+)(bit|kbit|mbit|B|kB|MB)?$`)

// rate reads 64kbit, 100kB or off as bytes per second.
func rate(s string) (int, error) {
	if s == "off" {
		return 0, nil
	}
	m := rateRE.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("read rate %q: want 64kbit, 100kB or off", s)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0, fmt.Errorf("read rate: %w", err)
	}
	switch m[2] {
	case "bit":
		n /= 8
	case "kbit":
		n = n * 1000 / 8
	case "mbit":
		n = n * 1000_000 / 8
	case "kB":
		n *= 1000
	case "MB":
		n *= 1000_000
	}
	return max(n, 1), nil
}
