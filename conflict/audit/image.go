package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Imager prints row images as JSON objects, the way to_jsonb prints a row for the built-in
// scalar types: numbers, booleans and json as themselves, the rest as strings. Values of
// types that it does not know are strings of what the WAL held (hex for binary). The
// result is always accepted by a cast to jsonb, which takes 256 MiB: in an image that would be larger, values
// above briefBytes are told by their size and SHA-256. It masks redacted columns. It is pure; one
// Imager must not be used by two goroutines at once.
type Imager struct {
	redact *Redactor
	types  *pgtype.Map
	most   int  // bytes of an image
	brief  bool // large values are only told of
}

const (
	// imageBytes is the largest image, in bytes of its text. jsonb holds no more than 2^28 - 1 bytes.
	imageBytes = 255 << 20
	// briefBytes is the largest value that stands in an image which would be too large as it is.
	briefBytes = 64 << 10
	// nestedBytes is the largest value of type json or jsonb that stands as itself, and not as a string: as jsonb it may be many times as large as its text.
	nestedBytes = 16 << 20
)

// NewImager returns an Imager that masks what redact (may be nil) hides.
func NewImager(redact *Redactor) *Imager {
	return &Imager{redact: redact, types: pgtype.NewMap(), most: imageBytes}
}

// Row appends the image of t, a tuple of rel, to dst. A nil tuple appends nothing: no row.
// Unchanged values are left out.
func (m *Imager) Row(dst []byte, rel *wal.Relation, t wal.Tuple) []byte {
	if t == nil {
		return dst
	}
	return m.columns(dst, rel, t, nil)
}

// Key appends the object of the key columns only; positions as in wal.Relation.KeyColumns.
func (m *Imager) Key(dst []byte, rel *wal.Relation, t wal.Tuple, positions []int) []byte {
	if positions == nil {
		positions = []int{}
	}
	return m.columns(dst, rel, t, positions)
}

func (m *Imager) columns(dst []byte, rel *wal.Relation, t wal.Tuple, positions []int) []byte {
	begin := len(dst)
	if dst = m.object(dst, rel, t, positions); len(dst)-begin <= m.most {
		return dst
	}
	m.brief = true
	defer func() { m.brief = false }()
	return m.object(dst[:begin:begin], rel, t, positions)
}

func (m *Imager) object(dst []byte, rel *wal.Relation, t wal.Tuple, positions []int) []byte {
	first := true
	dst = append(dst, '{')
	one := func(i int) {
		if i >= len(t) || i >= len(rel.Columns) || t[i].Absent() {
			return
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		c := &rel.Columns[i]
		dst = append(appendString(dst, c.Name), ':')
		if m.redact.Hides(rel.Ref(), c.Name) {
			dst = append(dst, Redacted...)
			return
		}
		dst = m.value(dst, c.OID, t[i])
	}
	if positions == nil {
		for i := range t {
			one(i)
		}
	} else {
		for _, i := range positions {
			one(i)
		}
	}
	return append(dst, '}')
}

func (m *Imager) value(dst []byte, oid uint32, v wal.Value) []byte {
	if m.brief && len(v.Bytes) > briefBytes {
		return fmt.Appendf(dst, `"(%d bytes, SHA-256 %x)"`, len(v.Bytes), sha256.Sum256(v.Bytes))
	}
	switch v.Kind {
	case wal.Text:
		if oid == wal.OIDText || oid == wal.OIDVarchar || oid == wal.OIDBytea {
			return appendString(dst, v.Bytes)
		}
		return appendText(dst, oid, string(v.Bytes))
	case wal.Binary:
		if text, ok := m.binaryText(oid, v.Bytes); ok {
			return appendText(dst, oid, text)
		}
		return appendString(dst, `\x`+hex.EncodeToString(v.Bytes))
	}
	return append(dst, "null"...)
}

// binaryText turns a binary value into the text that appendText reads.
func (m *Imager) binaryText(oid uint32, b []byte) (string, bool) {
	if text, ok := wal.AppendText(nil, oid, wal.Value{Kind: wal.Binary, Bytes: b}); ok {
		return string(text), true
	}
	switch oid {
	case wal.OIDJSONB:
		if len(b) > 0 && b[0] == 1 {
			return string(b[1:]), true
		}
		return "", false
	case wal.OIDJSON:
		return string(b), true
	case wal.OIDBytea:
		return `\x` + hex.EncodeToString(b), true
	}
	typ, ok := m.types.TypeForOID(oid)
	if !ok {
		return "", false
	}
	// Through the Go value into the text format: pgtype knows both formats of the type.
	value, err := typ.Codec.DecodeValue(m.types, oid, pgtype.BinaryFormatCode, b)
	if err != nil || value == nil {
		return "", false
	}
	text, err := m.types.Encode(oid, pgtype.TextFormatCode, value, nil)
	if err != nil || text == nil {
		return "", false
	}
	return string(text), true
}

func appendText(dst []byte, oid uint32, s string) []byte {
	switch oid {
	case wal.OIDBool:
		switch s {
		case "t", "true":
			return append(dst, "true"...)
		case "f", "false":
			return append(dst, "false"...)
		}
	case wal.OIDInt2, wal.OIDInt4, wal.OIDInt8, wal.OIDOid, wal.OIDNumeric, wal.OIDFloat4, wal.OIDFloat8:
		if isNumber(s) {
			return append(dst, s...)
		}
	case wal.OIDTimestamp, wal.OIDTimestamptz:
		s = isoTime(s)
	case wal.OIDJSON, wal.OIDJSONB:
		if len(s) <= nestedBytes && storable(s) {
			return append(dst, s...)
		}
	}
	return appendString(dst, s)
}

// isNumber accepts what both JSON and numeric accept, and what stays of a sane length.
func isNumber(s string) bool {
	if s == "" || !json.Valid([]byte(s)) {
		return false
	}
	if c := s[0]; c != '-' && (c < '0' || c > '9') {
		return false
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		exponent, err := strconv.Atoi(s[i+1:])
		return err == nil && exponent > -1000 && exponent < 1000
	}
	return true
}

// isoTime turns "2024-01-02 03:04:05+00" into "2024-01-02T03:04:05+00:00" as to_jsonb does;
// infinities and other date styles stay as they are.
func isoTime(s string) string {
	i := strings.IndexByte(s, ' ')
	if i < 8 || s[i-3] != '-' || i+9 > len(s) || s[i+3] != ':' {
		return s
	}
	clock, era, _ := strings.Cut(s[i+1:], " ")
	switch j := strings.LastIndexAny(clock, "+-"); {
	case j >= 0 && len(clock)-j == 3:
		clock += ":00"
	case strings.HasSuffix(clock, "Z"):
		clock = strings.TrimSuffix(clock, "Z") + "+00:00"
	}
	if era != "" {
		era = " " + era
	}
	return s[:i] + "T" + clock + era
}

// storable reports whether a json text can be cast to jsonb, which is stricter: no \u0000, no lone
// surrogates, no numbers beyond numeric. When in doubt it says no, and the text
// becomes a JSON string.
func storable(s string) bool {
	if !json.Valid([]byte(s)) || !utf8.ValidString(s) {
		return false
	}
	if strings.Contains(s, `\u`) {
		low := strings.ToLower(s)
		for _, bad := range []string{`\u0000`, `\ud8`, `\ud9`, `\uda`, `\udb`, `\udc`, `\udd`, `\ude`, `\udf`} {
			if strings.Contains(low, bad) {
				return false
			}
		}
	}
	if !strings.ContainsAny(s, "eE") {
		return true
	}
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	for {
		token, err := d.Token()
		if err != nil {
			return true // the end: it was valid
		}
		if n, ok := token.(json.Number); ok && !isNumber(n.String()) {
			return false
		}
	}
}

// appendString appends s as a JSON string that jsonb accepts: invalid UTF-8 and NUL are replaced.
// Values may be large: nothing of them is copied on the way.
func appendString[T string | []byte](dst []byte, s T) []byte {
	const digits = "0123456789abcdef"
	dst = append(slices.Grow(dst, len(s)+2), '"')
	start, bad := 0, false
	flush := func(end int) { dst = append(dst, s[start:end]...) }
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r != utf8.RuneError || n > 1 {
				i, bad = i+n, false
				continue
			}
			flush(i)
			if !bad { // one sign for a run of bad bytes
				dst = append(dst, "\uFFFD"...)
			}
			i, bad = i+1, true
			start = i
			continue
		}
		bad = false
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		flush(i)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		case 0:
			dst = append(dst, "\uFFFD"...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		i++
		start = i
	}
	flush(len(s))
	return append(dst, '"')
}
