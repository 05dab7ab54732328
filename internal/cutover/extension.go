package cutover

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// Extensions are the statements that make the source's extensions at the destination. They change nothing by themselves. What the destination's server does not
// have, or has in another version, is among the findings.
func (e *Ends) Extensions(ctx context.Context) (statements []string, fs preflight.Findings, err error) {
	type extension struct{ name, schema, version string }
	read := func(end *End, sql string) ([]extension, error) {
		rows, err := end.Conn.Query(ctx, sql)
		if err != nil {
			return nil, fmt.Errorf("read extensions of %s: %w", end.Region, err)
		}
		list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (x extension, err error) {
			return x, row.Scan(&x.name, &x.schema, &x.version)
		})
		if err != nil {
			return nil, fmt.Errorf("read extensions of %s: %w", end.Region, err)
		}
		return list, nil
	}
	const installed = `select x.extname::text, n.nspname::text, x.extversion from pg_catalog.pg_extension x join pg_catalog.pg_namespace n on n.oid = x.extnamespace order by x.oid`
	want, err := read(e.Source, installed)
	if err != nil {
		return nil, nil, err
	}
	have, err := read(e.Destination, installed)
	if err != nil {
		return nil, nil, err
	}
	can, err := read(e.Destination, `select name::text, '', coalesce(default_version, '') from pg_catalog.pg_available_extensions`)
	if err != nil {
		return nil, nil, err
	}
	there, available := map[string]string{}, map[string]bool{}
	for _, x := range have {
		there[x.name] = x.version
	}
	for _, x := range can {
		available[x.name] = true
	}
	for _, x := range want {
		version, is := there[x.name]
		switch {
		case is && version != x.version:
			fs = append(fs, preflight.Finding{Severity: preflight.Warning, Code: "extension_version", What: fmt.Sprintf("extension %s has version %s at the source and %s at the destination", x.name, x.version, version), Remedy: "alter extension " + pg.Quote(x.name) + " update"})
		case is:
		case !available[x.name]:
			fs = append(fs, preflight.Finding{Severity: preflight.Error, Code: "no_extension", What: fmt.Sprintf("the destination's server does not have extension %s", x.name), Remedy: "install its package there"})
		default:
			if x.schema != "pg_catalog" && x.schema != x.name {
				statements = append(statements, "create schema if not exists "+pg.Quote(x.schema))
				statements = append(statements, "create extension if not exists "+pg.Quote(x.name)+" schema "+pg.Quote(x.schema))
				continue
			}
			statements = append(statements, "create extension if not exists "+pg.Quote(x.name))
		}
	}
	return statements, fs, nil
}
