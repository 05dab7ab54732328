package wal

import "bytes"

// Form says what of a key value's text names the row. Where PostgreSQL calls two spellings
// equal (1.5 and 1.50, citext, a collation that ignores case), both have one form, so that
// maps, side tables and both regions agree with the unique index.
type Form byte

const (
	// FormPlain: the bytes of the text decide.
	FormPlain Form = iota
	// FormNumeric: zeros at the end of the fraction do not count.
	FormNumeric
	// FormFloat: -0 is 0.
	FormFloat
	// FormPadded: spaces at the end do not count (char(n)).
	FormPadded
	// FormLower: citext; the server's lower() decides.
	FormLower
	// FormHash: the server's hash function of the key's operator class decides.
	FormHash
	// FormUnknown: nobody can tell; the table is refused.
	FormUnknown

	lastForm = FormUnknown
)

// Asked reports whether only the server can compute the form.
func (f Form) Asked() bool { return f == FormLower || f == FormHash }

// Valid reports whether f is one of the constants; for readers of the wire.
func (f Form) Valid() bool { return f <= lastForm }

// String names the form for messages.
func (f Form) String() string {
	switch f {
	case FormPlain:
		return "plain"
	case FormNumeric:
		return "numeric"
	case FormFloat:
		return "float"
	case FormPadded:
		return "padded"
	case FormLower:
		return "lower"
	case FormHash:
		return "hash"
	}
	return "unknown"
}

// Canonical returns the part of a key value's text that names the row. It shares text's bytes.
// For the forms that only the server can compute it returns the text itself.
func (f Form) Canonical(text []byte) []byte {
	switch f {
	case FormNumeric:
		if bytes.IndexByte(text, '.') >= 0 {
			text = bytes.TrimRight(text, "0")
			text = bytes.TrimSuffix(text, []byte{'.'})
		}
		if string(text) == "-0" {
			return text[1:]
		}
	case FormFloat:
		if string(text) == "-0" {
			return text[1:]
		}
	case FormPadded:
		return bytes.TrimRight(text, " ")
	}
	return text
}
