package cases

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// check is the family let, assert, status, metric, log, pglog, http.
func (x *run) check(ctx context.Context, s Step) error {
	switch s.Name {
	case "let":
		return x.let(ctx, s.Arg)
	case "assert":
		side, rest := cutSide(s.Arg)
		i := strings.LastIndex(rest, " => ")
		if i < 0 {
			return fmt.Errorf("read assertion: want SIDE: query => [op] value [within 30s]")
		}
		c, err := parseCondition(rest[i+4:])
		if err != nil {
			return err
		}
		return x.eventually(ctx, c, func(ctx context.Context) (string, error) {
			got, err := x.rows(ctx, side, rest[:i])
			return complaint(got, c), err
		})
	case "status":
		return x.eachSide(ctx, s.Arg, func(r *harness.Region, rest string) error {
			path, tail, _ := strings.Cut(rest, " ")
			return x.valueCheck(ctx, tail, func(ctx context.Context) (string, error) { return r.Sidecar.StatusField(ctx, path) })
		})
	case "metric":
		return x.eachSide(ctx, s.Arg, func(r *harness.Region, rest string) error {
			name, tail := cutMetric(rest)
			return x.valueCheck(ctx, tail, func(ctx context.Context) (string, error) { return metric(ctx, r, name) })
		})
	case "log", "pglog":
		if rest, ok := strings.CutPrefix(s.Arg, "standby."); ok {
			return x.eachSide(ctx, rest, func(r *harness.Region, rest string) error {
				if r.Standby == nil {
					return fmt.Errorf("read log: there is no standby")
				}
				return x.logCheck(ctx, r, r.Standby.LogPath, rest)
			})
		}
		return x.eachSide(ctx, s.Arg, func(r *harness.Region, rest string) error {
			path := r.Sidecar.LogPath
			if s.Name == "pglog" {
				path = r.Cluster.LogPath
			}
			return x.logCheck(ctx, r, path, rest)
		})
	case "http":
		arg, second := strings.CutPrefix(s.Arg, "standby.")
		return x.eachSide(ctx, arg, func(r *harness.Region, rest string) (err error) {
			sc := r.Sidecar
			if second {
				if sc, err = x.p.StandbyOf(r); err != nil {
					return err
				}
			}
			return x.httpCheck(ctx, sc, rest)
		})
	}
	return fmt.Errorf("unknown assertion --@%s", s.Name)
}

func (x *run) eachSide(_ context.Context, arg string, fn func(*harness.Region, string) error) error {
	side, rest := cutSide(arg)
	rs, err := x.regions(side)
	if err != nil {
		return err
	}
	for _, r := range rs {
		if err := fn(r, rest); err != nil {
			return fmt.Errorf("%s: %w", r.Side, err)
		}
	}
	return nil
}

func (x *run) valueCheck(ctx context.Context, tail string, read func(context.Context) (string, error)) error {
	c, err := parseCondition(tail)
	if err != nil {
		return err
	}
	return x.eventually(ctx, c, func(ctx context.Context) (string, error) {
		got, err := read(ctx)
		return complaint(got, c), err
	})
}

func complaint(got string, c condition) string {
	if c.holds(got) {
		return ""
	}
	return fmt.Sprintf("%q, want %s", shorten(got), c)
}

// cutMetric splits name{labels} from the condition; labels may hold blanks.
func cutMetric(s string) (name, tail string) {
	if i, j := strings.IndexByte(s, '{'), strings.IndexByte(s, '}'); i > 0 && j > i && !strings.Contains(s[:i], " ") {
		return s[:j+1], s[j+1:]
	}
	name, tail, _ = strings.Cut(s, " ")
	return name, tail
}

func metric(ctx context.Context, r *harness.Region, name string) (string, error) {
	v, ok, err := r.Sidecar.Metric(ctx, name)
	if err != nil || !ok {
		return "", err
	}
	return strconv.FormatFloat(v, 'f', -1, 64), nil
}

// logCheck reads `contains|lacks regexp [within 10s]`.
func (x *run) logCheck(ctx context.Context, r *harness.Region, path, rest string) error {
	verb, pattern, _ := strings.Cut(rest, " ")
	c, err := parseCondition("~ " + pattern)
	if err != nil {
		return err
	}
	re := regexp.MustCompile(c.value)
	if verb != "contains" && verb != "lacks" {
		return fmt.Errorf("read log check %q: want contains or lacks", rest)
	}
	from := x.logStart(path)
	return x.eventually(ctx, c, func(context.Context) (string, error) {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read log of %s: %w", r.Side, err)
		}
		if from < len(data) {
			data = data[from:]
		} else if from > 0 {
			data = nil
		}
		m := re.Find(data)
		if (m != nil) == (verb == "contains") {
			return "", nil
		}
		if verb == "contains" {
			return "no line of the log fits " + c.value, nil
		}
		return fmt.Sprintf("the log holds %q", shorten(string(m))), nil
	})
}

// logStart is where this case's part of a log begins: the shared clusters' logs have
// older parts.
func (x *run) logStart(path string) int {
	if n, err := strconv.Atoi(x.vars["logstart."+path]); err == nil {
		return n
	}
	return 0
}

// httpCheck reads `GET /path => code [op text]`.
func (x *run) httpCheck(ctx context.Context, sc *harness.Sidecar, arg string) error {
	request, tail, ok := strings.Cut(arg, "=>")
	f := strings.Fields(request)
	want, rest, _ := strings.Cut(strings.TrimSpace(tail), " ")
	if !ok || len(f) != 2 {
		return fmt.Errorf("read request %q: want METHOD /path => code [op text]", arg)
	}
	c, err := parseCondition(rest)
	if err != nil {
		return err
	}
	return x.eventually(ctx, c, func(ctx context.Context) (string, error) {
		code, body, err := sc.HTTP(ctx, f[0], f[1])
		switch {
		case err != nil:
			return "", err
		case strconv.Itoa(code) != want:
			return fmt.Sprintf("code %d, want %s", code, want), nil
		case c.value != "" && !c.holds(body):
			return fmt.Sprintf("body %q, want %s", shorten(body), c), nil
		}
		return "", nil
	})
}

var letRE = regexp.MustCompile(`(?s)^([A-Za-z_][A-Za-z0-9_]*)\s*:=\s*(.*)$`)
var onRE = regexp.MustCompile(`(?s)^(.*\S)\s+on\s+([ABC])$`)

// let reads `x := A: query`, `x := query on A`, `x := status A path`, `x := metric A name`,
// `x := stream A messages`, `x := pid sidecar.A`.
func (x *run) let(ctx context.Context, arg string) error {
	m := letRE.FindStringSubmatch(arg)
	if m == nil {
		return fmt.Errorf("read %q: want name := source", arg)
	}
	name, expr := m[1], strings.TrimSpace(m[2])
	f := strings.Fields(expr)
	var got string
	var err error
	switch {
	case len(f) >= 3 && (f[0] == "status" || f[0] == "metric" || f[0] == "stream"):
		var r *harness.Region
		if r, err = x.p.Region(f[1]); err != nil {
			return err
		}
		switch f[0] {
		case "status":
			got, err = r.Sidecar.StatusField(ctx, f[2])
		case "metric":
			got, err = metric(ctx, r, strings.Join(f[2:], " "))
		default:
			got, err = x.streamField(ctx, r, f[2])
		}
	case len(f) == 2 && f[0] == "pid":
		got, err = x.pid(f[1])
	case onRE.MatchString(expr):
		q := onRE.FindStringSubmatch(expr)
		got, err = x.rows(ctx, q[2], q[1])
	default:
		side, q := cutSide(expr)
		got, err = x.rows(ctx, side, q)
	}
	if err != nil {
		return err
	}
	x.vars[name] = got
	return nil
}

func (x *run) pid(target string) (string, error) {
	kind, side, _ := strings.Cut(target, ".")
	r, err := x.p.Region(side)
	if err != nil {
		return "", err
	}
	sc := r.Sidecar
	if kind == "standby" {
		sc = r.Standby
	}
	if sc == nil || sc.Process() == nil {
		return "", fmt.Errorf("find pid of %s: it was never started", target)
	}
	return strconv.Itoa(sc.Process().PID()), nil
}
