package demo

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/audit"
)

// auditSummary is what the audit logs of both regions hold at the end.
type auditSummary struct {
	Rows     map[string]int64            `json:"rows"`      // by region
	Events   int                         `json:"events"`    // distinct conflicts
	InBoth   int                         `json:"in_both"`   // of those, logged by both regions
	ByType   map[string]map[string]int64 `json:"by_type"`   // type -> verdict -> rows, both regions together
	Parked   int64                       `json:"parked"`    // changes set aside
	Refused  int64                       `json:"refused"`   // messages in quarantine
	Disclose int64                       `json:"disclosed"` // images that show a redacted column
}

// losersSQL reads who was beaten on a user row. The remote side is the origin's, the local
// side the other region's. The key is an object or an array; both name the uuid.
const losersSQL = `SELECT key, loser, coalesce(image #>> '{groups,0}', ''), image IS NULL OR (type LIKE 'delete%' AND loser = origin)
	FROM (SELECT coalesce(CASE jsonb_typeof(key) WHEN 'array' THEN key->>0 ELSE key->>'uuid' END, '') AS key, loser, origin, type,
	CASE WHEN loser = origin THEN remote_row ELSE local_row END AS image
	FROM pgwaltz.conflict WHERE table_name = 'users' AND loser <> '') AS beaten`

func (r *region) losers(ctx context.Context) ([]beaten, error) {
	rows, err := r.pool.Query(ctx, losersSQL)
	if err != nil {
		return nil, fmt.Errorf("read audit log of region %s: %w", r.name, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (beaten, error) {
		var b beaten
		err := row.Scan(&b.key, &b.loser, &b.id, &b.isDelete)
		return b, err
	})
	if err != nil {
		return nil, fmt.Errorf("read audit log of region %s: %w", r.name, err)
	}
	return list, nil
}

func readAudit(ctx context.Context, regions [2]*region) (auditSummary, error) {
	s := auditSummary{Rows: map[string]int64{}, ByType: map[string]map[string]int64{}}
	seen := map[string]int{}
	for _, r := range regions {
		rows, err := r.pool.Query(ctx, `SELECT event_id::text, coalesce(type, ''), coalesce(verdict, '') FROM pgwaltz.conflict`)
		if err != nil {
			return s, fmt.Errorf("read audit log of region %s: %w", r.name, err)
		}
		var event, kind, verdict string
		if _, err := pgx.ForEachRow(rows, []any{&event, &kind, &verdict}, func() error {
			seen[event]++
			s.Rows[r.name]++
			if s.ByType[kind] == nil {
				s.ByType[kind] = map[string]int64{}
			}
			s.ByType[kind][verdict]++
			return nil
		}); err != nil {
			return s, fmt.Errorf("read audit log of region %s: %w", r.name, err)
		}
		var parked, refused, disclosed int64
		if err := r.pool.QueryRow(ctx, `SELECT (SELECT count(*) FROM pgwaltz.parked), (SELECT count(*) FROM pgwaltz.quarantine),
			(SELECT count(*) FROM pgwaltz.conflict WHERE table_name = 'users'
			 AND (local_row->>'password' <> '[redacted]' OR remote_row->>'password' <> '[redacted]'))`).Scan(&parked, &refused, &disclosed); err != nil {
			return s, fmt.Errorf("read side tables of region %s: %w", r.name, err)
		}
		s.Parked += parked
		s.Refused += refused
		s.Disclose += disclosed
	}
	s.Events = len(seen)
	for _, n := range seen {
		if n == len(regions) {
			s.InBoth++
		}
	}
	return s, nil
}

// samples picks three audit rows of different types where there are as many.
func samples(ctx context.Context, r *region) ([]audit.Row, error) {
	rows, err := audit.List(ctx, r.pool, audit.Filter{Table: "public.users", Limit: 500})
	if err != nil {
		return nil, fmt.Errorf("region %s: %w", r.name, err)
	}
	picked, types := []audit.Row{}, map[string]bool{}
	for _, fresh := range []bool{true, false} {
		for _, row := range rows {
			if len(picked) < 3 && types[row.Type] != fresh && !contains(picked, row.ID) {
				picked = append(picked, row)
				types[row.Type] = true
			}
		}
	}
	return picked, nil
}

func contains(rows []audit.Row, id int64) bool {
	for _, r := range rows {
		if r.ID == id {
			return true
		}
	}
	return false
}

// sampleText shows a row of the log in three lines: what happened, and both images.
func sampleText(r audit.Row) (string, error) {
	diffs, err := audit.Diff(r)
	if err != nil {
		return "", err
	}
	local, remote := "", ""
	for _, d := range diffs {
		switch d.Column {
		case "groups", "password", "updated_at", "version":
			local += cell(d.Column, d.Local)
			remote += cell(d.Column, d.Remote)
		}
	}
	if r.LocalRow == nil {
		local = "  (no row)"
	}
	if r.RemoteRow == nil {
		remote = "  (no row)"
	}
	return fmt.Sprintf("  %s on %s.%s %s: %s won over %s (%s)\n    %-3s%s\n    %-3s%s\n",
		r.Type, r.Schema, r.Table, r.Key, r.Winner, r.Loser, r.Reason, r.LocalRegion(), local, r.Origin, remote), nil
}

func cell(column string, value audit.JSON) string {
	if value == nil {
		return ""
	}
	return "  " + column + "=" + string(value)
}
