package cutover

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/preflight"
)

// dumping is what is dumped of one end.
type dumping struct {
	programs
	env     []string        // libpq's, for this end
	options []string        // of both programs
	left    map[string]bool // schemas that are left out, because the destination has them
}

// oursSQL are the entries of a dump that stand for what pgwaltz and its modes have made, and the server could not make without their functions: tableoid and
// oid, as pg_restore lists them. Schemas ($1) are left out as well.
const oursSQL = `select t.tableoid::int8, t.oid::int8 from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid join pg_catalog.pg_namespace n on n.oid = p.pronamespace where n.nspname in ('pgwaltz', 'pglogical')
union all select t.tableoid::int8, t.oid::int8 from pg_catalog.pg_event_trigger t join pg_catalog.pg_proc p on p.oid = t.evtfoid join pg_catalog.pg_namespace n on n.oid = p.pronamespace where n.nspname in ('pgwaltz', 'pglogical')
union all select x.tableoid::int8, x.oid::int8 from pg_catalog.pg_extension x where x.extname in ('pglogical', 'pglogical_origin')
union all select n.tableoid::int8, n.oid::int8 from pg_catalog.pg_namespace n where n.nspname = any($1) and n.nspname <> 'public'`

// dump is the schema of one end as SQL, and how many objects it makes. pg_dump reads the snapshot of this end's session: so it is the same database of the
// same server, whose session was asked who it is.
func (e *End) dump(ctx context.Context, d dumping) (text string, objects int, err error) {
	dir, err := os.MkdirTemp("", "pgwaltz-schema-")
	if err != nil {
		return "", 0, err
	}
	defer os.RemoveAll(dir)
	tx, err := e.Conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return "", 0, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it only read
	var snapshot string
	if err := tx.QueryRow(ctx, `select pg_catalog.pg_export_snapshot()`).Scan(&snapshot); err != nil {
		return "", 0, fmt.Errorf("take a snapshot of %s: %w", e.Region, err)
	}
	var names []string
	for name := range d.left {
		names = append(names, name)
	}
	rows, err := tx.Query(ctx, oursSQL, names)
	if err != nil {
		return "", 0, fmt.Errorf("read the schema of %s: %w", e.Region, err)
	}
	skip := map[string]bool{}
	var table, oid int64
	if _, err := pgx.ForEachRow(rows, []any{&table, &oid}, func() error { skip[fmt.Sprintf("%d %d", table, oid)] = true; return nil }); err != nil {
		return "", 0, fmt.Errorf("read the schema of %s: %w", e.Region, err)
	}
	file, list := filepath.Join(dir, "dump"), filepath.Join(dir, "list")
	args := append([]string{"--schema-only", "--format=custom", "--no-password", "--no-publications", "--no-subscriptions", "--no-security-labels", "--lock-wait-timeout=10000",
		"--exclude-schema=pgwaltz", "--exclude-schema=pglogical", "--snapshot=" + snapshot, "--file=" + file}, d.options...)
	if _, err := d.run(ctx, d.env, "pg_dump", args...); err != nil {
		return "", 0, fmt.Errorf("read the schema of %s: %w", e.Region, err)
	}
	all, err := d.run(ctx, nil, "pg_restore", "--list", file)
	if err != nil {
		return "", 0, err
	}
	kept, objects := chosen(all, skip)
	if err := os.WriteFile(list, []byte(kept), 0o600); err != nil {
		return "", 0, err
	}
	text, err = d.run(ctx, nil, "pg_restore", append([]string{"--use-list=" + list, "--file=-", file}, d.options...)...)
	return text, objects, err
}

// entry is a line of a dump's list: its number, what it stands for in the catalog, and its name.
var entry = regexp.MustCompile(`^\d+; (\d+ \d+) (.*)$`)

// chosen leaves entries out of a dump's list, and counts the others. What is said of extensions is theirs, and only their owner could say it again.
func chosen(list string, skip map[string]bool) (kept string, n int) {
	var out []string
	for line := range strings.Lines(list) {
		m := entry.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		if m == nil || skip[m[1]] || strings.HasPrefix(m[2], "COMMENT - EXTENSION ") {
			continue
		}
		out = append(out, line)
		n++
	}
	return strings.Join(out, ""), n
}

// Lines of a dump that are the program's and not the schema's.
var (
	setting  = regexp.MustCompile(`^SET ([a-z_]+) = [^;]*;$`)
	restrict = regexp.MustCompile(`^\\(un)?restrict [A-Za-z0-9]+$`)
	dumpedBy = regexp.MustCompile(`^-- Dumped (from|by) `)
)

// plain is the text without what only psql understands, and without settings that the destination's server does not know: those at its head, which a newer
// pg_dump writes.
func plain(text string, known map[string]bool) string {
	var out []string
	lines := strings.SplitAfter(text, "\n")
	head, last := true, len(lines)-8
	for i, line := range lines {
		bare := strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(bare, "-- Name: ") {
			head = false
		}
		m := setting.FindStringSubmatch(bare)
		switch {
		case head && m != nil && !known[m[1]]:
		case (head || i >= last) && restrict.MatchString(bare):
		case head && dumpedBy.MatchString(bare):
		default:
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// difference is the first line that two texts do not share; "" where they are equal.
func difference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range max(len(x), len(y)) {
		switch {
		case i >= len(x):
			return "only at the destination: " + y[i]
		case i >= len(y):
			return "only at the source: " + x[i]
		case x[i] != y[i]:
			return fmt.Sprintf("%q at the source, %q at the destination", x[i], y[i])
		}
	}
	return ""
}

// place is the object of a text's position (letters, from 1 on) that a server's error names.
func place(text string, position int32) string {
	letters := []rune(text)
	if position < 1 || int(position) > len(letters) {
		return ""
	}
	at := string(letters[:position])
	i := strings.LastIndex(at, "\n-- Name: ")
	if i < 0 {
		return ""
	}
	line, _, _ := strings.Cut(at[i+len("\n-- "):], "\n")
	return strings.TrimSpace(line)
}

// refusal is one finding that stops a copy of the schema.
func refusal(code, remedy, format string, args ...any) error {
	return &preflight.Refusal{Doing: "copy the schema", Findings: preflight.Findings{{Severity: preflight.Error, Code: code, What: fmt.Sprintf(format, args...), Remedy: remedy}}}
}
