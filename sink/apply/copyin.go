package apply

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Many new rows of one table go in by COPY, which costs the server about half of what an
// INSERT from arrays does. COPY has no ON CONFLICT and returns nothing, so it is used only
// where no trigger can touch the stamps, and behind a savepoint: when a row is there already,
// the same rows go through the ordinary INSERT, which leaves that row for a decision.

// copyRows is from how many rows on COPY pays.
const copyRows = 500

// copyIn writes the runs by COPY. It reports false, with nothing done, when a row is in the
// way of one of them.
func (a *Applier) copyIn(ctx context.Context, g *batch.Group, t *target, runs []int) (bool, error) {
	if _, err := a.conn.Exec(ctx, "savepoint bulk"); err != nil {
		return false, fmt.Errorf("savepoint: %w", err)
	}
	a.at = 0
	_, err := a.conn.PgConn().CopyFrom(ctx, &copyReader{g: g, t: t, runs: runs}, copySQL(t))
	if err == nil {
		if _, err = a.conn.Exec(ctx, "release savepoint bulk"); err != nil {
			return false, fmt.Errorf("release savepoint: %w", err)
		}
		return true, nil
	}
	if !rowError(err) {
		return false, fmt.Errorf("copy into %s: %w", g.Rel, err)
	}
	if err := a.back(ctx, "bulk"); err != nil {
		return false, err
	}
	_, err = a.conn.Exec(ctx, "release savepoint bulk")
	return false, err
}

// mayCopy reports whether runs of a group may go in by COPY.
func (a *Applier) mayCopy(g *batch.Group, t *target, runs []int) bool {
	return len(runs) >= copyRows && a.cfg.Replica && !g.Binary && !t.schema.fires && len(t.check) == 0 && !a.plain
}

// copySQL is the statement; the rows follow in COPY's text form.
func copySQL(t *target) string {
	names := make([]string, len(t.insert))
	for i, c := range t.insert {
		names[i] = statement.Quote(t.params[c].Name)
	}
	return "copy " + t.table + " (" + strings.Join(names, ", ") + ") from stdin"
}

// copyReader prints rows in COPY's text form, some at a time.
type copyReader struct {
	g    *batch.Group
	t    *target
	runs []int
	buf  bytes.Buffer
}

func (r *copyReader) Read(p []byte) (int, error) {
	for r.buf.Len() < len(p) && len(r.runs) > 0 {
		image := r.g.Runs[r.runs[0]].Image
		r.runs = r.runs[1:]
		for n, c := range r.t.insert {
			if n > 0 {
				r.buf.WriteByte('\t')
			}
			appendCopy(&r.buf, image[c])
		}
		r.buf.WriteByte('\n')
	}
	return r.buf.Read(p)
}

// appendCopy prints one value: backslash, tab, newline and carriage return are escaped.
func appendCopy(b *bytes.Buffer, v wal.Value) {
	if v.Kind != wal.Text {
		b.WriteString(`\N`)
		return
	}
	rest := v.Bytes
	for {
		i := bytes.IndexAny(rest, "\\\t\n\r")
		if i < 0 {
			b.Write(rest)
			return
		}
		b.Write(rest[:i])
		b.WriteByte('\\')
		switch rest[i] {
		case '\t':
			b.WriteByte('t')
		case '\n':
			b.WriteByte('n')
		case '\r':
			b.WriteByte('r')
		default:
			b.WriteByte('\\')
		}
		rest = rest[i+1:]
	}
}
