package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// tableResult is the comparison of one table.
type tableResult struct {
	Table string            `json:"table"`
	Rows  map[string]int64  `json:"rows"` // by region
	Hash  map[string]string `json:"hash"`
	Equal bool              `json:"equal"`
}

// The settings under which every row has one text, whatever the server's defaults.
const pinned = `SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1; SET bytea_output = 'hex'; SET search_path = ''`

// compare hashes every table in both regions at once.
func compare(ctx context.Context, regions [2]*region) ([]tableResult, error) {
	var rows [2]map[string]int64
	var hashes [2]map[string]string
	g, ctx := errgroup.WithContext(ctx)
	for i, r := range regions {
		g.Go(func() error {
			var err error
			rows[i], hashes[i], err = r.hash(ctx)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var results []tableResult
	for _, t := range tables {
		result := tableResult{Table: t, Rows: map[string]int64{}, Hash: map[string]string{}}
		for i, r := range regions {
			result.Rows[r.name], result.Hash[r.name] = rows[i][t], hashes[i][t]
		}
		result.Equal = hashes[0][t] == hashes[1][t] && rows[0][t] == rows[1][t]
		results = append(results, result)
	}
	return results, nil
}

func allEqual(results []tableResult) bool {
	for _, r := range results {
		if !r.Equal {
			return false
		}
	}
	return len(results) == len(tables)
}

// hash returns the number of rows and the hash over all of them, ordered, of each table, in
// one snapshot. Generated columns are left out: they follow from the others.
func (r *region) hash(ctx context.Context) (map[string]int64, map[string]string, error) {
	conn, err := pgx.Connect(ctx, r.cluster.DSN(database))
	if err != nil {
		return nil, nil, fmt.Errorf("compare region %s: %w", r.name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, pinned); err != nil {
		return nil, nil, fmt.Errorf("compare region %s: %w", r.name, err)
	}
	rows, hashes := map[string]int64{}, map[string]string{}
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		for _, t := range tables {
			list, err := columnList(ctx, tx, t)
			if err != nil {
				return err
			}
			var n int64
			var h string
			if err := tx.QueryRow(ctx, `SELECT count(*), md5(coalesce(string_agg(h, '' ORDER BY h), '')) FROM (SELECT md5(ROW(`+list+
				`)::text) AS h FROM ONLY `+pgx.Identifier{"public", t}.Sanitize()+`) AS x`).Scan(&n, &h); err != nil {
				return fmt.Errorf("hash table %s: %w", t, err)
			}
			rows[t], hashes[t] = n, h
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("compare region %s: %w", r.name, err)
	}
	return rows, hashes, nil
}

func columnList(ctx context.Context, tx pgx.Tx, table string) (string, error) {
	rows, err := tx.Query(ctx, `SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = $1::text::regclass
		AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attname`, "public."+table)
	if err != nil {
		return "", fmt.Errorf("read columns of %s: %w", table, err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err == nil && len(names) == 0 {
		err = errors.New("it has none")
	}
	if err != nil {
		return "", fmt.Errorf("read columns of %s: %w", table, err)
	}
	for i, n := range names {
		names[i] = pgx.Identifier{n}.Sanitize()
	}
	return strings.Join(names, ", "), nil
}

// orphans counts the rows whose user is gone: foreign keys must hold after a merge too.
func (r *region) orphans(ctx context.Context) (int64, error) {
	var n int64
	for _, t := range []string{"identities", "sessions", "subscriptions"} {
		var here int64
		if err := r.pool.QueryRow(ctx, `SELECT count(*) FROM `+t+` AS c WHERE NOT EXISTS (SELECT FROM users AS u WHERE u.uuid = c.user_uuid)`).Scan(&here); err != nil {
			return 0, fmt.Errorf("look for orphans in region %s: %w", r.name, err)
		}
		n += here
	}
	return n, nil
}

// finalWrites reads the write id of each user row.
func (r *region) finalWrites(ctx context.Context) (map[string]string, error) {
	rows, err := r.pool.Query(ctx, `SELECT uuid::text, coalesce(groups->>0, '') FROM users`)
	if err != nil {
		return nil, fmt.Errorf("read users of region %s: %w", r.name, err)
	}
	final := map[string]string{}
	var key, id string
	if _, err := pgx.ForEachRow(rows, []any{&key, &id}, func() error {
		final[key] = id
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read users of region %s: %w", r.name, err)
	}
	return final, nil
}
