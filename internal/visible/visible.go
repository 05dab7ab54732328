// Package visible makes text safe to print for people. Names of tables, columns and constraints,
// messages of servers and what peers say may hold anything: a line break that begins a line of its
// own in a report or in a script, or a sequence that a terminal obeys.
package visible

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Text returns s on one line: whatever is not printed as a character of its own is written as an
// escape, as in Go. Other characters, the backslash too, stay as they are.
func Text(s string) string { return escape(s, false) }

// Lines is Text for what may have several lines.
func Lines(s string) string { return escape(s, true) }

// Args makes those of the arguments of a format visible that print as text.
func Args(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		out[i] = a
		switch v := a.(type) {
		case string:
			out[i] = Text(v)
		case fmt.Stringer, error:
			out[i] = Text(fmt.Sprint(v))
		default:
			if v := reflect.ValueOf(a); v.Kind() == reflect.String {
				out[i] = Text(v.String())
			}
		}
	}
	return out
}

func escape(s string, lines bool) string {
	harmless := func(r rune) bool { return unicode.IsGraphic(r) || lines && r == '\n' }
	clean := true
	for i, r := range s {
		if !harmless(r) || r == utf8.RuneError && isBroken(s[i:]) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case harmless(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[n:]
	}
	return b.String()
}

// isBroken reports whether s begins with a byte that is no UTF-8.
func isBroken(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return r == utf8.RuneError && n == 1
}

// JSON returns JSON text that means the same, in which every character that is not printed as one
// of its own is an escape. Such characters stand in strings only, but for blanks and line breaks.
func JSON(text []byte) []byte {
	stays := func(r rune) bool { return unicode.IsGraphic(r) || r == '\n' || r == '\t' || r == '\r' }
	if bytes.IndexFunc(text, func(r rune) bool { return !stays(r) }) < 0 {
		return text
	}
	out := make([]byte, 0, len(text)+64)
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if hi, lo := utf16.EncodeRune(r); stays(r) {
			out = append(out, text[:n]...)
		} else if hi != utf8.RuneError {
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		} else {
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		text = text[n:]
	}
	return out
}

// JSONWriter is w, with JSON made of what is written. Each Write has whole characters.
func JSONWriter(w io.Writer) io.Writer { return jsonWriter{w} }

type jsonWriter struct{ w io.Writer }

func (j jsonWriter) Write(p []byte) (int, error) {
	if _, err := j.w.Write(JSON(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}
