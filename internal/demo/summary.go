package demo

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict/audit"
)

// Summary is the result of a run, and the object that --json prints.
type Summary struct {
	Equal        bool           `json:"equal"`
	Rows         int64          `json:"rows_compared"`
	Tables       []tableResult  `json:"tables"`
	Writes       map[string]int `json:"writes"`                // statements of the application, by region
	Acknowledged int            `json:"acknowledged_writes"`   // of user rows, those in the ledger
	Planned      map[string]int `json:"conflicts_on_purpose"`  // by what was done
	Refused      map[string]int `json:"refused_by_sqlstate"`   // what the databases refused the application
	Conflicts    auditSummary   `json:"conflicts"`             // what the audit logs hold
	Writeproof   verdict        `json:"ancestor_or_audited"`   // the checker's verdict
	Orphans      int64          `json:"orphans"`               // rows without their user, both regions together
	Latency      latency        `json:"latency"`               // commit here to visible there
	DrainSeconds float64        `json:"drain_seconds"`         // from the last write to equal tables
	CutSeconds   float64        `json:"cut_seconds"`           //
	Seed         uint64         `json:"seed"`                  //
	Samples      []audit.Row    `json:"samples"`               // three rows of the audit log
	LeftBehind   []string       `json:"left_behind"`           // processes and folders that are still there
	Kept         string         `json:"kept_folder,omitempty"` // with --keep
	Good         bool           `json:"ok"`
	Problems     []string       `json:"problems"`
}

func (d *demo) summarize(ctx context.Context, tables []tableResult, drained time.Duration) (*Summary, error) {
	counts := d.work.snapshot()
	s := &Summary{Tables: tables, Equal: allEqual(tables), Writes: map[string]int{}, Acknowledged: d.ledger.acknowledged(), Planned: counts.Conflicts,
		Refused: counts.Refused, Latency: d.prober.latency(), DrainSeconds: drained.Seconds(), CutSeconds: d.opt.Cut.Seconds(), Seed: d.opt.Seed, LeftBehind: []string{}}
	var log []beaten
	for i, r := range d.regions {
		s.Writes[r.name] = counts.Writes[i]
		losers, err := r.losers(ctx)
		if err != nil {
			return nil, err
		}
		log = append(log, losers...)
		orphans, err := r.orphans(ctx)
		if err != nil {
			return nil, err
		}
		s.Orphans += orphans
	}
	for _, t := range tables {
		s.Rows += t.Rows[d.regions[0].name]
	}
	final, err := d.regions[0].finalWrites(ctx)
	if err != nil {
		return nil, err
	}
	s.Writeproof = d.ledger.check(final, log)
	if s.Conflicts, err = readAudit(ctx, d.regions); err != nil {
		return nil, err
	}
	if s.Samples, err = samples(ctx, d.regions[0]); err != nil {
		return nil, err
	}
	return s, nil
}

// Judge fills in Good and Problems; call it when everything else is known.
func (s *Summary) Judge() {
	s.Problems = []string{}
	problem := func(bad bool, format string, args ...any) {
		if bad {
			s.Problems = append(s.Problems, fmt.Sprintf(format, args...))
		}
	}
	for _, t := range s.Tables {
		problem(!t.Equal, "table %s differs: rows %v", t.Table, t.Rows)
	}
	problem(len(s.Tables) != len(tables), "%d of %d tables were compared", len(s.Tables), len(tables))
	problem(s.Rows == 0, "no rows were compared")
	problem(len(s.Writeproof.Lost) > 0, "%d acknowledged writes are neither in the result nor in the audit log: %s", len(s.Writeproof.Lost), few(s.Writeproof.Lost))
	problem(len(s.Writeproof.Invented) > 0, "%d rows hold writes that nobody made: %s", len(s.Writeproof.Invented), few(s.Writeproof.Invented))
	problem(s.Orphans > 0, "%d rows have lost their user", s.Orphans)
	problem(s.Conflicts.Parked > 0, "%d changes are parked", s.Conflicts.Parked)
	problem(s.Conflicts.Refused > 0, "%d messages are in quarantine", s.Conflicts.Refused)
	problem(s.Conflicts.Disclose > 0, "%d audit rows show a redacted column", s.Conflicts.Disclose)
	problem(len(s.LeftBehind) > 0, "left behind: %s", strings.Join(s.LeftBehind, ", "))
	s.Good = len(s.Problems) == 0
}

// Differ reports whether the regions disagree, or a write is lost, as opposed to other problems.
func (s *Summary) Differ() bool { return !s.Equal || len(s.Writeproof.Lost) > 0 }

func few(list []string) string {
	if len(list) > 5 {
		return strings.Join(list[:5], ", ") + ", …"
	}
	return strings.Join(list, ", ")
}

// Print writes the summary for people.
func (s *Summary) Print(w io.Writer) error {
	var b strings.Builder
	b.WriteString("\nTables\n")
	for _, t := range s.Tables {
		word := "equal"
		if !t.Equal {
			word = fmt.Sprintf("DIFFERENT %v", t.Rows)
		}
		fmt.Fprintf(&b, "  %-16s%8d rows  %s\n", t.Table, slices.Max(slices.Collect(maps.Values(t.Rows))), word)
	}
	b.WriteString("\nWrites\n")
	for _, r := range slices.Sorted(maps.Keys(s.Writes)) {
		fmt.Fprintf(&b, "  %-16s%8d statements by the application\n", r, s.Writes[r])
	}
	fmt.Fprintf(&b, "  %-16s%8d writes of user rows, %d in the result or replaced on the way to it, %d explained by the audit log, %d lost\n", "acknowledged",
		s.Acknowledged, s.Writeproof.Explained-s.Writeproof.Audited, s.Writeproof.Audited, len(s.Writeproof.Lost))
	for _, code := range slices.Sorted(maps.Keys(s.Refused)) {
		fmt.Fprintf(&b, "  %-16s%8d refused by the database (%s)\n", "", s.Refused[code], code)
	}
	fmt.Fprintf(&b, "\nConflicts\n  %d settled, %d of them in the audit logs of both regions\n", s.Conflicts.Events, s.Conflicts.InBoth)
	for _, kind := range slices.Sorted(maps.Keys(s.Conflicts.ByType)) {
		verdicts := s.Conflicts.ByType[kind]
		fmt.Fprintf(&b, "  %-28s", kind)
		for _, v := range slices.Sorted(maps.Keys(verdicts)) {
			fmt.Fprintf(&b, " %s %d", v, verdicts[v])
		}
		b.WriteByte('\n')
	}
	if len(s.Samples) > 0 {
		b.WriteString("\nFrom the audit log\n")
	}
	for _, row := range s.Samples {
		text, err := sampleText(row)
		if err != nil {
			return fmt.Errorf("print sample: %w", err)
		}
		b.WriteString(text)
	}
	fmt.Fprintf(&b, "\nCommit here to visible there, link up: p50 %.1f ms, p95 %.1f ms, p99 %.1f ms (%d samples)\n", s.Latency.P50, s.Latency.P95, s.Latency.P99, s.Latency.Samples)
	fmt.Fprintf(&b, "After the last write, equal within %.1fs; the link had been cut for %.0fs\n\n", s.DrainSeconds, s.CutSeconds)
	if s.Kept != "" {
		fmt.Fprintf(&b, "Kept: %s\n", s.Kept)
	}
	if s.Good {
		fmt.Fprintf(&b, "OK: %d rows compared, the regions are equal, every lost write is explained.\n", s.Rows)
	} else {
		b.WriteString("NOT OK:\n")
		for _, p := range s.Problems {
			fmt.Fprintf(&b, "  %s\n", p)
		}
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print summary: %w", err)
	}
	return nil
}
