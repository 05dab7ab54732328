package apply

import (
	"bytes"
	"fmt"

	"github.com/pgwaltz/pgwaltz/conflict"
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
		switch {
		case stored[n] == nil:
		case s.VersionText:
			got = conflict.VersionText(stored[n])
		default:
			got = int8Of(stored[n])
		}
		if got != r.Stamp.Version {
			return &stampError{name: st.group.Rel.Ref(), column: s.Version}
		}
		n++
	}
	if s.UpdatedAt != "" {
		got := wal.MinMicros
		switch {
		case stored[n] == nil:
		case s.TimeText:
			got = conflict.TimeText(stored[n])
		default:
			got = microsOf(stored[n])
		}
		if got != r.Stamp.UpdatedAt {
			return &stampError{name: st.group.Rel.Ref(), column: s.UpdatedAt}
		}
		n++
	}
	for k, c := range st.check {
		if !sameValue(st.t.spelling[c], r.Image[c], stored[n+k]) {
			return &valueError{name: st.group.Rel.Ref(), column: st.t.params[c].Name}
		}
	}
	return nil
}

// sameValue reports whether what is stored is what came.
func sameValue(x spelling, sent wal.Value, stored []byte) bool {
	switch sent.Kind {
	case wal.Unchanged:
		return true
	case wal.Null:
		return stored == nil
	}
	return stored != nil && (bytes.Equal(sent.Bytes, stored) || x.same(sent, stored))
}

// spelling is how a column here prints the values of the origin's column: a wider type may print
// one value in another way, which is no other value.
type spelling uint8

const (
	spelledAlike   spelling = iota
	spelledDecimal          // numeric of another scale: zeros at the end
	spelledPadded           // character of another length: blanks at the end
	spelledDated            // a date as a timestamp: midnight
	spelledZoned            // a timestamp with a time zone, which is UTC in our sessions
	spelledDay              // a timestamp as a date: it has to be midnight
	spelledUnzoned          // a timestamp without the time zone, which is UTC in our sessions
)

// spellingOf tells the spelling from the types here and there.
func spellingOf(here, there uint32) spelling {
	switch {
	case here == wal.OIDNumeric && (there == wal.OIDNumeric || integer(there) || floating(there)), floating(here) && there == wal.OIDNumeric:
		return spelledDecimal
	case here == wal.OIDBpchar && there == wal.OIDBpchar:
		return spelledPadded
	case there == wal.OIDDate && (here == wal.OIDTimestamp || here == wal.OIDTimestamptz):
		return spelledDated
	case there == wal.OIDTimestamp && here == wal.OIDTimestamptz:
		return spelledZoned
	case here == wal.OIDDate && (there == wal.OIDTimestamp || there == wal.OIDTimestamptz):
		return spelledDay
	case here == wal.OIDTimestamp && there == wal.OIDTimestamptz:
		return spelledUnzoned
	}
	return spelledAlike
}

func (x spelling) same(sent wal.Value, stored []byte) bool {
	if sent.Kind == wal.Binary {
		// numeric_send: three words of which the scale is no part of the value, the scale, digits.
		return x == spelledDecimal && len(sent.Bytes) >= 8 && len(stored) == len(sent.Bytes) &&
			bytes.Equal(sent.Bytes[:6], stored[:6]) && bytes.Equal(sent.Bytes[8:], stored[8:])
	}
	switch x {
	case spelledDecimal:
		return bytes.Equal(withoutZeros(sent.Bytes), withoutZeros(stored))
	case spelledPadded:
		return bytes.Equal(bytes.TrimRight(sent.Bytes, " "), bytes.TrimRight(stored, " "))
	case spelledDated:
		return midnight(sent.Bytes, stored)
	case spelledDay:
		return midnight(stored, sent.Bytes)
	case spelledZoned:
		return zoned(sent.Bytes, stored)
	case spelledUnzoned:
		return zoned(stored, sent.Bytes)
	}
	return false
}

// midnight reports whether at is the beginning of the day, in UTC if it has a time zone.
func midnight(day, at []byte) bool {
	d, era := cutEra(day)
	t, its := cutEra(at)
	return era == its && bytes.Equal(append(d, " 00:00:00"...), bytes.TrimSuffix(t, []byte("+00")))
}

// zoned reports whether with is the time without a zone, taken as UTC.
func zoned(without, with []byte) bool {
	w, era := cutEra(without)
	z, its := cutEra(with)
	return era == its && bytes.Equal(append(w, "+00"...), z)
}

// withoutZeros is a decimal number without zeros at the end of its fraction.
func withoutZeros(number []byte) []byte {
	if !bytes.Contains(number, []byte(".")) {
		return number
	}
	return bytes.TrimRight(bytes.TrimRight(number, "0"), ".")
}

// cutEra takes the " BC" off a copy of a time.
func cutEra(text []byte) (at []byte, bc bool) {
	at, bc = bytes.CutSuffix(text, []byte(" BC"))
	return bytes.Clone(at), bc
}

// valueError says that a column stores another value than the one that came: it has another
// type here, or a trigger changes it. The regions would differ, and neither would know.
type valueError struct {
	name   wal.RelationName
	column string // "" for the row as a whole
}

func (e *valueError) Error() string {
	if e.column == "" {
		return fmt.Sprintf("apply to %s: the row does not stay as it came", e.name)
	}
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
