package apply

import (
	"context"
	"slices"

	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
)

// An insert of many rows says how many it has put in, and not which. A row that it has put in must not be taken for one that was there: what is known of
// its key by the commit has to be looked at (undisturbed), and so has what was stored.

// partly finds out which runs an insert has put in that left others alone, and returns the others.
func (a *Applier) partly(ctx context.Context, st fastStmt, fx *effects) (left []int, err error) {
	g, t := st.group, st.t
	s := a.keyShape(g, t)
	s.Check = t.names(st.check)
	put, n := make([]bool, len(st.runs)), 0
	var bad error
	formats := slices.Concat([]int16{1}, stampFormats(s), checkFormats(st.check, binaryColumn(g, st.runs)))
	err = a.query(ctx, statement.Put(s), a.keyArrays(g, t, st.runs, nil), formats, func(v [][]byte) {
		at := int8Of(v[0]) - 1
		if put[at], n = true, n+1; bad == nil {
			bad = a.verify(st, st.runs[at], v[1:])
		}
	})
	// Where it is another number, an earlier change of this transaction has written some of them, or a trigger has taken some away. All are
	// looked at then, and none is taken for one that somebody else has written.
	sure := n == st.put
	if err == nil && sure {
		err = bad
	}
	if err != nil {
		return nil, err
	}
	done := a.doneInto(fx)
	for at, i := range st.runs {
		switch {
		case put[at] && sure:
			done(st, i)
			continue
		case put[at]:
			fx.put = append(fx.put, putRow{g: g, i: i})
		}
		left = append(left, i)
	}
	return left, nil
}
