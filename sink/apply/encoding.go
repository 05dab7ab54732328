package apply

import (
	"strings"
	"unicode/utf8"

	"github.com/pgwaltz/pgwaltz/conflict/audit"
)

// encoding is the server's encoding, as far as what we write beside the rows depends on it.
// Rows of the application go as they came: where the server cannot hold them, they are parked.
// Images, messages and key text of parked rows must never fail.
type encoding uint8

const (
	utf8Server encoding = iota
	latin1Server
	asciiServer // SQL_ASCII, and every encoding of which we know only the ASCII part
)

func encodingOf(name string) encoding {
	switch name {
	case "UTF8", "":
		return utf8Server
	case "LATIN1":
		return latin1Server
	}
	return asciiServer
}

// text replaces what the server cannot hold; for images and messages that people read.
func (e encoding) text(s string) string {
	if isASCII(s) {
		return s
	}
	s = strings.ToValidUTF8(s, "?")
	if e == utf8Server {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r < 0x80 || (e == latin1Server && r <= 0xFF) {
			return r
		}
		return '?'
	}, s)
}

// key makes key text that the server can hold. Different keys stay different: what is replaced
// is written as \x and two hexadecimal digits, which key text (a JSON array) has nowhere else.
func (e encoding) key(s string) string {
	if isASCII(s) || (e == utf8Server && utf8.ValidString(s)) {
		return s
	}
	const digits = "0123456789abcdef"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 0x80 {
			b.WriteString(`\x`)
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// records makes audit rows that the server can hold: they tell of rows that it may not have.
func (e encoding) records(rs []audit.Record) {
	if e == utf8Server {
		return // the images are valid already
	}
	for i := range rs {
		r := &rs[i]
		for _, image := range []*[]byte{&r.Key, &r.LocalRow, &r.RemoteRow} {
			if *image != nil {
				*image = []byte(e.text(string(*image)))
			}
		}
	}
}

func isASCII[T string | []byte](s T) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
