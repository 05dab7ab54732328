package cases

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// paired reads `[30s]`: within that time each conflict is in the audit logs of two regions at
// least, under one id. A report of a clock is about one region alone.
func (x *run) paired(ctx context.Context, arg string) error {
	limit := 20 * time.Second
	if arg != "" {
		d, err := time.ParseDuration(arg)
		if err != nil {
			return fmt.Errorf("read limit: %w", err)
		}
		limit = d
	}
	return harness.Poll(ctx, limit, 200*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		in, first, where, total := map[string]int{}, map[string]harness.Conflict{}, map[string]string{}, ""
		for _, r := range x.p.Regions() {
			rows, err := r.Conflicts(ctx)
			if err != nil {
				return false, "", err
			}
			total += fmt.Sprintf(" %d in %s", len(rows), r.Side)
			for _, c := range rows {
				if !quietTypes[c.Type] {
					in[c.EventID]++
					first[c.EventID], where[c.EventID] = c, r.Side
				}
			}
		}
		var alone []string
		for id, n := range in {
			if n == 1 {
				alone = append(alone, fmt.Sprintf("%s only in %s", first[id], where[id]))
			}
		}
		why := fmt.Sprintf("%d conflicts to be in a second log (%s): %s", len(alone), strings.TrimSpace(total), strings.Join(alone[:min(3, len(alone))], "; "))
		return len(alone) == 0, why, nil
	})
}
