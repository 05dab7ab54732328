package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/status"
)

// probe never re-uses a connection: the other end is killed and started all the time.
var probe = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil}}

// HTTP sends one request to the sidecar's own listener and returns code and body.
func (s *Sidecar) HTTP(ctx context.Context, method, path string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.HTTPAddr+path, nil)
	if err != nil {
		return 0, "", fmt.Errorf("make request: %w", err)
	}
	res, err := probe.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("ask sidecar %s for %s: %w", s.Region, path, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return res.StatusCode, "", fmt.Errorf("read %s of sidecar %s: %w", path, s.Region, err)
	}
	return res.StatusCode, string(body), nil
}

// Status asks the sidecar for its account of itself.
func (s *Sidecar) Status(ctx context.Context) (*status.Status, error) {
	code, body, err := s.HTTP(ctx, http.MethodGet, "/status")
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK && code != http.StatusServiceUnavailable {
		return nil, fmt.Errorf("ask sidecar %s for its status: code %d", s.Region, code)
	}
	var st status.Status
	if err := json.Unmarshal([]byte(body), &st); err != nil {
		return nil, fmt.Errorf("read status of sidecar %s: %w", s.Region, err)
	}
	return &st, nil
}

// StatusField looks one value up in the status JSON. A step of the dotted path is a field,
// an index, or, in a list of objects, the value of the element's region, origin or table (without the schema public).
// A field that is left out counts as the empty string.
func (s *Sidecar) StatusField(ctx context.Context, path string) (string, error) {
	_, body, err := s.HTTP(ctx, http.MethodGet, "/status")
	if err != nil {
		return "", err
	}
	return LookupJSON(body, path)
}

// LookupJSON is the path language of StatusField on any JSON text.
func LookupJSON(text, path string) (string, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return "", fmt.Errorf("read JSON: %w", err)
	}
	if path == "." {
		return text, nil
	}
	for _, step := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[step]
		case []any:
			v = element(x, step)
		case nil:
			return "", nil
		default:
			return "", fmt.Errorf("look up %s: nothing below %q", path, step)
		}
	}
	switch x := v.(type) {
	case nil:
		return "", nil
	case string:
		return x, nil
	case json.Number:
		return x.String(), nil
	case bool:
		return strconv.FormatBool(x), nil
	default:
		b, err := json.Marshal(x)
		return string(b), err
	}
}

func element(list []any, step string) any {
	if step == "#" {
		return json.Number(strconv.Itoa(len(list)))
	}
	if i, err := strconv.Atoi(step); err == nil {
		if i < len(list) {
			return list[i]
		}
		return nil
	}
	for _, e := range list {
		m, ok := e.(map[string]any)
		if !ok {
			continue
		}
		for _, f := range []string{"region", "origin", "table"} {
			if m[f] == step || f == "table" && m[f] == "public."+step {
				return e
			}
		}
	}
	return nil
}

// Metric reads one sample of /metrics. The name may carry labels, name{a="b",c="d"}:
// every sample that has at least these labels is added up. ok is false without any.
func (s *Sidecar) Metric(ctx context.Context, name string) (value float64, ok bool, err error) {
	_, body, err := s.HTTP(ctx, http.MethodGet, "/metrics")
	if err != nil {
		return 0, false, err
	}
	v, ok := SumMetric(body, name)
	return v, ok, nil
}

// SumMetric adds up the samples of a metrics page that match name{labels}.
func SumMetric(page, name string) (float64, bool) {
	base, want := splitLabels(name)
	sum, found := 0.0, false
	for _, line := range strings.Split(page, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		if i < 0 {
			continue
		}
		n, have := splitLabels(line[:i])
		if n != base || !hasAll(have, want) {
			continue
		}
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err == nil {
			sum, found = sum+v, true
		}
	}
	return sum, found
}

func splitLabels(s string) (string, []string) {
	name, rest, ok := strings.Cut(s, "{")
	if !ok {
		return strings.TrimSpace(s), nil
	}
	rest = strings.TrimSuffix(strings.TrimSpace(rest), "}")
	var labels []string
	for _, l := range strings.Split(rest, ",") {
		if l = strings.TrimSpace(l); l != "" {
			labels = append(labels, l)
		}
	}
	return strings.TrimSpace(name), labels
}

func hasAll(have, want []string) bool {
	for _, w := range want {
		found := false
		for _, h := range have {
			if h == w {
				found = true
			}
		}
		if !found {
			return false
		}
	}
	return true
}
