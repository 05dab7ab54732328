package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/pgwaltz/pgwaltz/internal/visible"
)

// ColumnDiff is one column of both images. A nil side did not have the column: there was
// no row, or the WAL did not hold the value.
type ColumnDiff struct {
	Column  string `json:"column"`
	Local   JSON   `json:"local"`
	Remote  JSON   `json:"remote"`
	Differs bool   `json:"differs"`
}

// Diff compares the images of a row column by column, ordered by name.
func Diff(r Row) ([]ColumnDiff, error) {
	local, err := fields(r.LocalRow)
	if err != nil {
		return nil, fmt.Errorf("read local image of conflict %d: %w", r.ID, err)
	}
	remote, err := fields(r.RemoteRow)
	if err != nil {
		return nil, fmt.Errorf("read remote image of conflict %d: %w", r.ID, err)
	}
	names := map[string]bool{}
	for n := range local {
		names[n] = true
	}
	for n := range remote {
		names[n] = true
	}
	diffs := make([]ColumnDiff, 0, len(names))
	for n := range names {
		l, r := local[n], remote[n]
		diffs = append(diffs, ColumnDiff{Column: n, Local: JSON(l), Remote: JSON(r), Differs: !bytes.Equal(l, r)})
	}
	sort.Slice(diffs, func(i, j int) bool { return diffs[i].Column < diffs[j].Column })
	return diffs, nil
}

// fields splits an image. jsonb prints values in one canonical form, so bytes compare.
func fields(image JSON) (map[string]json.RawMessage, error) {
	if len(image) == 0 {
		return nil, nil
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(image, &m); err != nil {
		return nil, fmt.Errorf("parse image: %w", err)
	}
	return m, nil
}

// WriteDiff prints a row of the log for people: what happened, and both images side by
// side with the columns that differ marked.
func WriteDiff(w io.Writer, r Row) error {
	diffs, err := Diff(r)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, visible.Text(value))
		}
	}
	line("conflict", fmt.Sprintf("%d  %s", r.ID, r.EventID))
	line("table", r.Schema+"."+r.Table)
	line("key", string(r.Key))
	line("type", r.Type)
	line("verdict", r.Verdict+" the remote change"+because(r.Reason))
	line("detected", r.DetectedAt.UTC().Format(timeForm)+" in "+r.Region)
	line("winner", r.Winner)
	line("loser", r.Loser)
	line("local stamp", r.LocalStamp)
	line("remote stamp", r.RemoteStamp)
	line("base stamp", r.BaseStamp)
	origin := fmt.Sprintf("%s, transaction %d at %s", r.Origin, r.OriginXID, r.CommitLSN)
	if r.CommitTime != nil {
		origin += ", committed " + r.CommitTime.UTC().Format(timeForm)
	}
	line("remote change", origin)
	line("settled by", fmt.Sprintf("transaction %d at %s", r.LocalXID, r.LocalLSN))
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print conflict: %w", err)
	}
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, " \tcolumn\t%s\t%s\n", visible.Text(side("local", r.LocalRegion(), r)), visible.Text(side("remote", r.Origin, r)))
	if r.LocalRow == nil || r.RemoteRow == nil {
		fmt.Fprintf(t, " \t\t%s\t%s\n", rowWord(r.LocalRow), rowWord(r.RemoteRow))
	}
	for _, d := range diffs {
		mark := " "
		if d.Differs && r.LocalRow != nil && r.RemoteRow != nil {
			mark = "*"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", visible.Args([]any{mark, d.Column, cell(r.LocalRow, d.Local), cell(r.RemoteRow, d.Remote)})...)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print conflict: %w", err)
	}
	return nil
}

const timeForm = "2006-01-02 15:04:05.000000Z"

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func side(word, region string, r Row) string {
	s := word + " " + region
	switch region {
	case r.Winner:
		return s + " (winner)"
	case r.Loser:
		return s + " (loser)"
	}
	return s
}

func rowWord(image JSON) string {
	if image == nil {
		return "(no row)"
	}
	return "(row)"
}

// cell shortens long values; --json has them whole.
func cell(image, value JSON) string {
	const most = 60
	switch {
	case image == nil:
		return ""
	case value == nil:
		return "(not in the WAL)"
	case utf8.RuneCount(value) <= most:
		return string(value)
	}
	return string([]rune(string(value))[:most-1]) + "…"
}
