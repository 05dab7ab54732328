package preflight

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/counterpart"
	"github.com/pgwaltz/pgwaltz/internal/config"
)

// One table that cannot be replicated as it is stops none of the others: what check finds about a single table is a
// state of a running sidecar, which names it. What is about the server, the role or the publication stops a start.

// aside are the warnings that say of a table that its changes are not sent, or not taken.
var aside = []string{"publication_tables", "table_without_identity", "table_unlogged", SelectionDiffers}

// Start is Check for a sidecar that begins: rest stops the start where it holds errors, tables are single ones that are not
// replicated, or not as they should be. Where that is an error about every table that is selected, nothing would flow,
// and it stays with the rest.
func Start(ctx context.Context, conn *pgx.Conn, cfg *config.Config) (tables, rest Findings, err error) {
	f, fs, err := check(ctx, conn, cfg)
	if err != nil {
		return nil, nil, err
	}
	if tables, rest = fs.apart(); !tables.leave(f.sel) {
		return nil, fs, nil
	}
	return tables, rest, nil
}

// Tables reads again what Start says of single tables, and holds the configuration against the rules of other regions. It
// changes nothing. The error says that it could not read.
func Tables(ctx context.Context, conn *pgx.Conn, cfg *config.Config, others map[string]Rules) (Findings, error) {
	f, err := loadFacts(ctx, conn, cfg)
	if err != nil {
		return nil, fmt.Errorf("check tables: %w", err)
	}
	var fs Findings
	checkPatterns(f, &fs)
	checkTables(f, &fs)
	if err := checkKeys(ctx, f, &fs); err != nil {
		return nil, fmt.Errorf("check tables: %w", err)
	}
	if cfg.Publishes() {
		checkPublication(f, &fs)
		if err := oneWay(ctx, f, fs); err != nil {
			return nil, fmt.Errorf("check tables: %w", err)
		}
	}
	if err := checkApplying(ctx, f, &fs); err != nil {
		return nil, fmt.Errorf("check tables: %w", err)
	}
	for _, region := range slices.Sorted(maps.Keys(others)) {
		if err := differing(f, region, others[region], &fs); err != nil {
			return nil, fmt.Errorf("check tables: %w", err)
		}
	}
	tables, _ := fs.apart()
	return tables, nil
}

// oneWay makes an error of what is said of a table that is not published while rows of it come from other regions: what is written here
// does not reach them. Of a table that only this region has, it stays a warning.
func oneWay(ctx context.Context, f *facts, fs Findings) error {
	lacks := func(found Finding) bool { return found.Code == "publication_tables" && found.Severity == Warning }
	if !f.schema.objects["counterpart"] || !slices.ContainsFunc(fs, lacks) {
		return nil
	}
	come, err := counterpart.Tables(ctx, f.conn)
	if err != nil {
		return err
	}
	for i := range fs {
		if lacks(fs[i]) && slices.ContainsFunc(f.sel.Tables, func(t *pg.Table) bool { return t.Ref() == fs[i].Relation && slices.Contains(come, int64(t.OID)) }) {
			fs[i].Severity = Error
			fs[i].What += ", and rows of it come from other regions: what is written here does not reach them"
		}
	}
	return nil
}

// apart splits off what is about single tables.
func (fs Findings) apart() (tables, rest Findings) {
	for _, f := range fs {
		if f.Table != "" && (f.Severity == Error || f.Severity == Warning && slices.Contains(aside, f.Code)) {
			tables = append(tables, f)
		} else {
			rest = append(rest, f)
		}
	}
	return tables, rest
}

// leave reports whether a selected table is left of which no error is found, or there is no error.
func (fs Findings) leave(sel Selection) bool {
	with := map[string]bool{}
	for _, f := range fs.Errors() {
		with[f.Table] = true
	}
	return len(with) == 0 || slices.ContainsFunc(sel.Tables, func(t *pg.Table) bool { return !with[t.Ref().String()] })
}
