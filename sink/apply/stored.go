package apply

import (
	"bytes"
	"fmt"

	"github.com/pgwaltz/pgwaltz/wal"
)

// What is stored has to be what came, or the regions differ and neither knows. The stamp is held
// against the event's in every statement; other columns only where they may store something else
// (target.check), because they have another type here or a trigger changes them.

// checkFormats asks for each column to check in the form that its values came in.
func checkFormats(check []int, binary func(int) bool) []int16 {
	f := make([]int16, len(check))
	for n, c := range check {
		if binary(c) {
			f[n] = 1
		}
	}
	return f
}

// verify holds the stored stamp against the event's (invariant 6), and the values of those
// columns that may store something else than what they are given.
func (a *Applier) verify(st fastStmt, i int, stored [][]byte) error {
	r, s := &st.group.Runs[i], st.t.shape
	n := 0
	if s.Version != "" {
		got := wal.NullVersion
		if stored[n] != nil {
			got = int8Of(stored[n])
		}
		if got != r.Stamp.Version {
			return &stampError{name: st.group.Rel.Ref(), column: s.Version}
		}
		n++
	}
	if s.UpdatedAt != "" {
		got := wal.MinMicros
		if stored[n] != nil {
			got = microsOf(stored[n])
		}
		if got != r.Stamp.UpdatedAt {
			return &stampError{name: st.group.Rel.Ref(), column: s.UpdatedAt}
		}
		n++
	}
	for k, c := range st.check {
		if !sameValue(r.Image[c], stored[n+k]) {
			return &valueError{name: st.group.Rel.Ref(), column: st.t.params[c].Name}
		}
	}
	return nil
}

// sameValue reports whether what is stored is what came.
func sameValue(sent wal.Value, stored []byte) bool {
	switch sent.Kind {
	case wal.Unchanged, wal.Digest:
		return true
	case wal.Null:
		return stored == nil
	}
	return stored != nil && bytes.Equal(sent.Bytes, stored)
}

// valueError says that a column stores another value than the one that came: it has another
// type here, or a trigger changes it. The regions would differ, and neither would know.
type valueError struct {
	name   wal.RelationName
	column string
}

func (e *valueError) Error() string {
	return fmt.Sprintf("apply to %s: column %s stores another value than the one that came", e.name, e.column)
}

// Hint says what to do about it.
func (e *valueError) Hint() string {
	return "give the column the same type in both regions; a trigger that changes applied rows has to be disabled for them (alter table ... enable trigger, without always or replica)"
}

// stampError says that what was stored is not what was sent: a trigger interferes.
type stampError struct {
	name   wal.RelationName
	column string
}

func (e *stampError) Error() string {
	return fmt.Sprintf("apply to %s: the stored %s is not the event's; a trigger rewrites it", e.name, e.column)
}

// Hint says what to do about it.
func (e *stampError) Hint() string {
	return "run `pgwaltz setup` so that triggers are passed by (session_replication_role, or the restorer triggers)"
}
