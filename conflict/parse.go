package conflict

import (
	"encoding/binary"
	"math"

	"github.com/pgwaltz/pgwaltz/wal"
)

// epoch2000 is 2000-01-01 UTC, where PostgreSQL's binary times begin.
const epoch2000 = 946684800 * 1000000

const microsPerDay = 86400 * 1000000

// VersionText is a version as the server prints it; what cannot be read stands where NULL does.
func VersionText(text []byte) int64 {
	if v, ok := parseInt(text); ok {
		return v
	}
	return wal.NullVersion
}

// TimeText is a time as the server prints it under DateStyle ISO; what cannot be read stands where
// NULL does.
func TimeText(text []byte) wal.Micros {
	if t, ok := parseTime(text); ok {
		return t
	}
	return wal.MinMicros
}

// TimeBinary is a timestamp, with a time zone or without, of eight bytes in binary form.
func TimeBinary(b []byte) wal.Micros {
	switch n := int64(binary.BigEndian.Uint64(b)); {
	case n == math.MinInt64:
		return wal.MinMicros
	case n == math.MaxInt64:
		return wal.MaxMicros
	case n >= lastDay*microsPerDay-epoch2000:
		return Beyond
	default:
		return wal.Micros(n + epoch2000)
	}
}

// Beyond stands for all times that PostgreSQL has and wal.Micros does not; it is no time itself.
const Beyond = wal.MaxMicros - 1

func versionOf(oid uint32, v wal.Value) (int64, bool) {
	b := v.Bytes
	switch v.Kind {
	case wal.Null, wal.Unchanged, wal.Digest:
		return wal.NullVersion, true
	case wal.Text:
		return parseInt(b)
	case wal.Binary:
		switch {
		case oid == wal.OIDInt8 && len(b) == 8:
			return int64(binary.BigEndian.Uint64(b)), true
		case oid == wal.OIDInt4 && len(b) == 4:
			return int64(int32(binary.BigEndian.Uint32(b))), true
		case oid == wal.OIDInt2 && len(b) == 2:
			return int64(int16(binary.BigEndian.Uint16(b))), true
		}
	}
	return 0, false
}

func timeOf(oid uint32, v wal.Value) (wal.Micros, bool) {
	b := v.Bytes
	switch v.Kind {
	case wal.Null, wal.Unchanged, wal.Digest:
		return wal.MinMicros, true
	case wal.Text:
		return parseTime(b)
	case wal.Binary:
		switch {
		case (oid == wal.OIDTimestamptz || oid == wal.OIDTimestamp) && len(b) == 8:
			return TimeBinary(b), true
		case oid == wal.OIDDate && len(b) == 4:
			n := int32(binary.BigEndian.Uint32(b))
			switch n {
			case math.MinInt32:
				return wal.MinMicros, true
			case math.MaxInt32:
				return wal.MaxMicros, true
			}
			return dayMicros(int64(n) + 10957), true
		}
	}
	return 0, false
}

// lastDay is the day in which wal.Micros ends, 294247-01-10. PostgreSQL's times reach 30
// years further and its dates still further; all of that is one place, just below infinity.
const lastDay = math.MaxInt64 / microsPerDay

// dayMicros is midnight of a day counted from 1970.
func dayMicros(days int64) wal.Micros {
	if days >= lastDay {
		return Beyond
	}
	return wal.Micros(days * microsPerDay)
}

// parseInt reads the integer part of a decimal number and saturates.
func parseInt(b []byte) (int64, bool) {
	neg := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		neg = b[0] == '-'
		b = b[1:]
	}
	if len(b) == 0 || b[0] < '0' || b[0] > '9' {
		return 0, false
	}
	var n int64 // counted downwards, so that -2^63 fits
	for i, c := range b {
		if c == '.' {
			for _, c := range b[i+1:] {
				if c < '0' || c > '9' {
					return 0, false
				}
			}
			break
		}
		if c < '0' || c > '9' {
			return 0, false
		}
		d := int64(c - '0')
		if n < (math.MinInt64+d)/10 {
			n = math.MinInt64
			continue
		}
		n = n*10 - d
	}
	if neg {
		return n, true
	}
	if n == math.MinInt64 {
		return math.MaxInt64, true
	}
	return -n, true
}

// parseTime reads what PostgreSQL prints for timestamptz, timestamp and date under DateStyle
// ISO: 2024-01-02 03:04:05.123456+00, with offsets +hh, +hh:mm and +hh:mm:ss, " BC" at the
// end, years of more than four digits, infinity and -infinity.
func parseTime(b []byte) (wal.Micros, bool) {
	switch string(b) {
	case "infinity":
		return wal.MaxMicros, true
	case "-infinity":
		return wal.MinMicros, true
	}
	p := scanner{b: b, ok: true}
	year := p.number(4, 7)
	p.expect('-')
	month := p.number(2, 2)
	p.expect('-')
	day := p.number(2, 2)
	var clock, offset int64
	if p.at(' ') && p.next(1) >= '0' && p.next(1) <= '9' {
		p.i++
		clock = p.clock()
		offset = p.offset()
	}
	if n := len(b); p.ok && n-p.i == 3 && string(b[p.i:]) == " BC" {
		year = 1 - year
		p.i = n
	}
	if !p.ok || p.i != len(b) || month < 1 || month > 12 || day < 1 || day > 31 {
		return 0, false
	}
	days := daysFromCivil(year, month, day)
	if days >= lastDay {
		return dayMicros(days), true
	}
	return wal.Micros(days*microsPerDay + clock - offset), true
}

// scanner reads fixed forms; after the first mismatch ok is false and everything is 0.
type scanner struct {
	b  []byte
	i  int
	ok bool
}

func (p *scanner) at(c byte) bool { return p.ok && p.i < len(p.b) && p.b[p.i] == c }

func (p *scanner) next(n int) byte {
	if p.i+n < len(p.b) {
		return p.b[p.i+n]
	}
	return 0
}

func (p *scanner) expect(c byte) {
	if !p.at(c) {
		p.ok = false
		return
	}
	p.i++
}

// number reads between lo and hi digits.
func (p *scanner) number(lo, hi int) int64 {
	var n int64
	k := 0
	for p.ok && k < hi && p.i < len(p.b) && p.b[p.i] >= '0' && p.b[p.i] <= '9' {
		n = n*10 + int64(p.b[p.i]-'0')
		p.i++
		k++
	}
	if k < lo {
		p.ok = false
	}
	return n
}

// clock reads hh:mm:ss with up to six digits of fraction, in microseconds.
func (p *scanner) clock() int64 {
	h := p.number(2, 2)
	p.expect(':')
	m := p.number(2, 2)
	p.expect(':')
	s := p.number(2, 2)
	if h > 24 || m > 59 || s > 60 {
		p.ok = false
	}
	t := (h*3600 + m*60 + s) * 1000000
	if p.at('.') {
		p.i++
		start := p.i
		f := p.number(1, 6)
		for k := p.i - start; k < 6; k++ {
			f *= 10
		}
		t += f
	}
	return t
}

// offset reads +hh, +hh:mm or +hh:mm:ss where there is one, in microseconds east of UTC.
func (p *scanner) offset() int64 {
	sign := int64(1)
	switch {
	case p.at('-'):
		sign = -1
	case p.at('+'):
	default:
		return 0
	}
	p.i++
	t := p.number(2, 2) * 3600
	if p.at(':') {
		p.i++
		t += p.number(2, 2) * 60
		if p.at(':') {
			p.i++
			t += p.number(2, 2)
		}
	}
	return sign * t * 1000000
}

// daysFromCivil counts days from 1970-01-01 in the proleptic Gregorian calendar, which is
// PostgreSQL's for all of time; year 0 is 1 BC.
func daysFromCivil(y, m, d int64) int64 {
	if m <= 2 {
		y--
		m += 12
	}
	era := y / 400
	if y < 0 {
		era = (y - 399) / 400
	}
	yoe := y - era*400
	doy := (153*(m-3)+2)/5 + d - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	return era*146097 + doe - 719468
}
