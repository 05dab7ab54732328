package streamstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Exclusions says which tables were left out of the stream where. Up to where the stream had come when a list was changed, what was left
// out stays left out, and what was published is published again, however often the WAL is read: otherwise it would
// show other transactions than it showed before, as that of a server does that was restored from an older state.
type Exclusions struct {
	Now    []string `json:"now"` // patterns
	Before []Former `json:"before,omitempty"`
}

// Former are the patterns by which tables were left out of what was committed below a position, and not below the one
// of the Former before it.
type Former struct {
	To      wal.LSN  `json:"to"`
	Exclude []string `json:"exclude"`
}

// Turn returns what is to be stored when tables are left out by other patterns from a position on. oldest is where the slot
// begins, even after a crash of the server: nobody reads what lies before. It reports whether anything changes.
func (e Exclusions) Turn(now []string, at, oldest wal.LSN) (Exclusions, bool) {
	out := Exclusions{Now: now, Before: slices.DeleteFunc(slices.Clone(e.Before), func(f Former) bool { return f.To <= oldest })}
	changed := len(out.Before) != len(e.Before)
	if !slices.Equal(e.Now, now) {
		out.Before, changed = append(out.Before, Former{To: at, Exclude: e.Now}), true
	}
	return out, changed
}

// At are the patterns for what was committed at a position; false: those of now.
func (e Exclusions) At(commit wal.LSN) (n int, former bool) {
	n = slices.IndexFunc(e.Before, func(f Former) bool { return commit < f.To })
	return n, n >= 0
}

// LoadExclusions reads what is stored; false when nothing is known, because nothing was published, or by a program that did not note it.
func LoadExclusions(ctx context.Context, c Conn, region string) (e Exclusions, known bool, err error) {
	var text string
	err = c.QueryRow(ctx, `select coalesce(exclusions, '') from pgwaltz.stream where region = $1`, region).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && text == "" {
		return e, false, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &e)
	}
	if err != nil {
		return e, false, fmt.Errorf("read which tables were left out: %w", err)
	}
	return e, true, nil
}

// SaveExclusions stores it, where the region has published before. It has to be on disk before anything is published by it.
func SaveExclusions(ctx context.Context, c Conn, region string, e Exclusions) error {
	text, err := json.Marshal(e)
	if err == nil {
		_, err = c.Exec(ctx, `update pgwaltz.stream set exclusions = $2 where region = $1`, region, string(text))
	}
	if err != nil {
		return fmt.Errorf("save which tables are left out: %w", err)
	}
	return nil
}
