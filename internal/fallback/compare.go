package fallback

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// Compared is one table on both sides at the moments when each was read.
type Compared struct {
	Table       string
	Here, There int64 // rows
	Same        bool
}

// CompareUntil compares again until all tables are equal, or until end; it returns what was found last.
func CompareUntil(ctx context.Context, here, there pg.Querier, publication string, end time.Time) ([]Compared, error) {
	for {
		list, err := Compare(ctx, here, there, publication)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(list, func(c Compared) bool { return !c.Same }) || time.Now().After(end) {
			return list, nil
		}
		if err := pause.For(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// Compare holds the tables that a publication of the peer sends against those here: the number of the rows, and a
// sum of 64-bit hashes of their text, in any order. Two tables that are written to meanwhile differ, whether they are
// in step or not. here and there must be sessions of adapter/pg, so that values read the same. It reads every row.
func Compare(ctx context.Context, here, there pg.Querier, publication string) ([]Compared, error) {
	pub, err := pg.LoadPublication(ctx, there, publication)
	if err != nil {
		return nil, err
	}
	if pub == nil {
		return nil, fmt.Errorf("compare: the peer has no publication %q", publication)
	}
	var out []Compared
	for _, t := range pub.Tables {
		quoted := make([]string, len(t.Columns))
		for i, c := range t.Columns {
			quoted[i] = pg.Quote(c)
		}
		sql := fmt.Sprintf(`select pg_catalog.count(*), coalesce(pg_catalog.sum(pg_catalog.hashtextextended(row(%s)::text, 0)), 0)::text from %s`,
			strings.Join(quoted, ", "), pg.QuoteTable(t.Name.Schema, t.Name.Name))
		if t.RowFilter != "" {
			continue // what is left out there may be here
		}
		c := Compared{Table: t.Name.String()}
		var a, b string
		if err := here.QueryRow(ctx, sql).Scan(&c.Here, &a); err != nil {
			return nil, fmt.Errorf("compare table %s here: %w", c.Table, err)
		}
		if err := there.QueryRow(ctx, sql).Scan(&c.There, &b); err != nil {
			return nil, fmt.Errorf("compare table %s at the peer: %w", c.Table, err)
		}
		c.Same = c.Here == c.There && a == b
		out = append(out, c)
	}
	return out, nil
}
