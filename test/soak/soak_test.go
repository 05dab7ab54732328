package main

import (
	"strings"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	flat := func() []sample {
		var all []sample
		for range windows {
			all = append(all, sample{tpmc: 9000, burst: time.Second, rss: [2]int64{90 << 20, 80 << 20}, fds: [2]int{40, 40}, idle: 20 * time.Millisecond})
		}
		return all
	}
	if err := judge(flat()); err != nil {
		t.Error(err)
	}
	one := flat()
	one[9].burst, one[9].idle, one[9].tpmc, one[9].lag = time.Minute, time.Minute, 1, time.Minute // a single slow window is the machine's
	if err := judge(one); err != nil {
		t.Error(err)
	}
	for name, wear := range map[string]func(i int, s *sample){
		"a burst takes":       func(i int, s *sample) { s.burst *= time.Duration(1 + i) },
		"tpmC":                func(i int, s *sample) { s.tpmc /= float64(1 + i) },
		"catches up after":    func(i int, s *sample) { s.lag = time.Duration(i) * time.Second },
		"MiB":                 func(i int, s *sample) { s.rss[1] += int64(i) * 32 << 20 },
		"descriptors":         func(i int, s *sample) { s.fds[0] += 5 * i },
		"idle in a transacti": func(i int, s *sample) { s.idle += time.Duration(i) * time.Second },
		"errors in window 4":  func(i int, s *sample) { s.errors = i % 4 / 3 },
	} {
		all := flat()
		for i := range all {
			wear(i, &all[i])
		}
		if err := judge(all); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"-duration", "1s"}, &out, &errs); code != 2 || errs.Len() == 0 {
		t.Errorf("code %d, %q", code, errs.String())
	}
}
