package conflict

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

func TestParseTime(t *testing.T) {
	t.Parallel()
	at := func(s string) wal.Micros {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return wal.MicrosOf(v)
	}
	for in, want := range map[string]wal.Micros{
		"2024-01-02 03:04:05.123456+00":   at("2024-01-02T03:04:05.123456Z"),
		"2024-01-02 03:04:05.1+00":        at("2024-01-02T03:04:05.1Z"),
		"2024-01-02 03:04:05+00":          at("2024-01-02T03:04:05Z"),
		"2024-01-02 03:04:05":             at("2024-01-02T03:04:05Z"),
		"2024-01-02":                      at("2024-01-02T00:00:00Z"),
		"2024-06-01 12:00:00+09":          at("2024-06-01T03:00:00Z"),
		"2024-05-31 23:00:00-04":          at("2024-06-01T03:00:00Z"),
		"1937-04-01 00:19:32.5+00:19:32":  at("1937-04-01T00:00:00.5Z"),
		"2024-06-01 08:45:00+05:45":       at("2024-06-01T03:00:00Z"),
		"1969-12-31 23:59:59.999999+00":   -1,
		"1970-01-01 00:00:00+00":          0,
		"0001-01-01 00:00:00+00":          at("0001-01-01T00:00:00Z"),
		"0001-12-31 00:00:00+00 BC":       at("0000-12-31T00:00:00Z"),
		"4714-11-24 00:00:00+00 BC":       -210866803200000000,
		"294246-12-31 23:59:59.999999+00": wal.Micros(daysFromCivil(294247, 1, 1)*microsPerDay - 1),
		"294276-12-31 23:59:59.999999+00": wal.MaxMicros - 1,
		"5874897-12-31":                   wal.MaxMicros - 1,
		"infinity":                        wal.MaxMicros,
		"-infinity":                       wal.MinMicros,
	} {
		got, ok := parseTime([]byte(in))
		if !ok || got != want {
			t.Errorf("%q is %d, %v; want %d", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "now", "2024-13-01", "2024-01-32", "2024-1-1", "2024-01-02T03:04:05Z", "2024-01-02 03:04", "2024-01-02 25:00:00+00", "2024-01-02 03:04:05+00 AD", "2024-01-02 03:04:05+00x", "12", "2024-01-02 03:04:05.+00"} {
		if got, ok := parseTime([]byte(in)); ok {
			t.Errorf("%q was read as %d", in, got)
		}
	}
}

func TestBinaryTime(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]wal.Micros{
		math.MinInt64: wal.MinMicros, math.MaxInt64: wal.MaxMicros, 0: epoch2000,
		9223371331199999999: wal.MaxMicros - 1, -211813488000000000: -210866803200000000,
	} {
		v := wal.Value{Kind: wal.Binary, Bytes: binary.BigEndian.AppendUint64(nil, uint64(n))}
		if got, ok := timeOf(wal.OIDTimestamp, v); !ok || got != want {
			t.Errorf("%d is %d, %v; want %d", n, got, ok, want)
		}
	}
	for n, want := range map[int32]wal.Micros{
		math.MinInt32: wal.MinMicros, math.MaxInt32: wal.MaxMicros, 0: epoch2000, 2145031948: wal.MaxMicros - 1,
	} {
		v := wal.Value{Kind: wal.Binary, Bytes: binary.BigEndian.AppendUint32(nil, uint32(n))}
		if got, ok := timeOf(wal.OIDDate, v); !ok || got != want {
			t.Errorf("day %d is %d, %v; want %d", n, got, ok, want)
		}
	}
}

// TestParseTimeRoundTrip is P6: what PostgreSQL prints comes back to the microsecond.
func TestParseTimeRoundTrip(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200000 {
		us := rng.Int64N(2*250_000_000_000_000_000) - 60_000_000_000_000_000
		text := time.UnixMicro(us).UTC().Format("2006-01-02 15:04:05.999999+00")
		if got, ok := parseTime([]byte(text)); !ok || int64(got) != us {
			t.Fatalf("%q is %d, %v; want %d", text, got, ok, us)
		}
		bin := binary.BigEndian.AppendUint64(nil, uint64(us-epoch2000))
		if got, ok := timeOf(wal.OIDTimestamptz, wal.Value{Kind: wal.Binary, Bytes: bin}); !ok || int64(got) != us {
			t.Fatalf("binary of %q is %d, %v", text, got, ok)
		}
	}
}

func TestParseInt(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"0": 0, "-0": 0, "7": 7, "-7": -7, "12.99": 12, "-12.99": -12, "+3": 3,
		"9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64,
		"9223372036854775808": math.MaxInt64, "99999999999999999999999": math.MaxInt64, "-99999999999999999999999": math.MinInt64,
	} {
		if got, ok := parseInt([]byte(in)); !ok || got != want {
			t.Errorf("%q is %d, %v; want %d", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "-", "NaN", "Infinity", "1e5", "1.x", ".5"} {
		if got, ok := parseInt([]byte(in)); ok {
			t.Errorf("%q was read as %d", in, got)
		}
	}
}

func TestStampOf(t *testing.T) { // not parallel: it counts allocations
	rel := &wal.Relation{Schema: "s", Name: "t", Columns: []wal.Column{{Name: "id", OID: 25}, {Name: "version", OID: 20}, {Name: "updated_at", OID: 1184}}}
	null := wal.Value{Kind: wal.Null}
	row := wal.Tuple{textOf("x"), textOf("3"), textOf("1970-01-01 00:00:01+00")}
	for name, c := range map[string]struct {
		cols Columns
		row  wal.Tuple
		want wal.Stamp
	}{
		"both":         {Columns{1, 2}, row, wal.Stamp{Version: 3, UpdatedAt: 1_000_000}},
		"nulls":        {Columns{1, 2}, wal.Tuple{textOf("x"), null, null}, wal.Stamp{Version: wal.NullVersion, UpdatedAt: wal.MinMicros}},
		"unchanged":    {Columns{1, 2}, wal.Tuple{textOf("x"), {Kind: wal.Unchanged}, {Kind: wal.Unchanged}}, wal.Stamp{Version: wal.NullVersion, UpdatedAt: wal.MinMicros}},
		"version only": {Columns{1, -1}, row, wal.Stamp{Version: 3, UpdatedAt: wal.MinMicros}},
		"time only":    {Columns{-1, 2}, row, wal.Stamp{Version: wal.NullVersion, UpdatedAt: 1_000_000}},
		"stampless":    {Columns{-1, -1}, row, wal.Stamp{Version: wal.NullVersion, UpdatedAt: 77}},
	} {
		got, err := StampOf(c.cols, rel, c.row, 77)
		if err != nil || got != c.want {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
	// What cannot be read counts as none: no pipe stops at it.
	for _, cols := range []Columns{{0, -1}, {-1, 0}} {
		got, err := StampOf(cols, rel, wal.Tuple{textOf("secret"), null, null}, 0)
		if want := (wal.Stamp{Version: wal.NullVersion, UpdatedAt: wal.MinMicros}); err != nil || got != want {
			t.Errorf("an unreadable stamp is %v, %v; want %v", got, err, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = StampOf(Columns{1, 2}, rel, row, 0) }); n != 0 {
		t.Errorf("StampOf allocates %v times", n)
	}
}

// TestColumnsOf: a column that only has the name is no stamp.
func TestColumnsOf(t *testing.T) {
	t.Parallel()
	of := func(version, at uint32) Columns {
		return ColumnsOf(&wal.Relation{Columns: []wal.Column{{Name: "id", OID: 23}, {Name: "version", OID: version}, {Name: "updated_at", OID: at}}}, "version", "updated_at")
	}
	for name, c := range map[string]struct{ got, want Columns }{
		"int8, timestamptz": {of(20, 1184), Columns{1, 2}},
		"numeric, date":     {of(1700, 1082), Columns{1, 2}},
		"text":              {of(25, 1184), Columns{-1, 2}},
		"both of a kind":    {of(25, 25), Columns{-1, -1}},
		"domains":           {of(16999, 17000), Columns{1, 2}},
		"the wrong way":     {of(1184, 20), Columns{-1, -1}},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
}

// TestAlike: what counts is which of the two there are, not where, nor of which type.
func TestAlike(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b Columns
		want bool
	}{
		{Columns{1, 2}, Columns{2, 1}, true},
		{Columns{-1, -1}, Columns{-1, -1}, true},
		{Columns{1, 2}, Columns{-1, 2}, false},
		{Columns{-1, 2}, Columns{2, -1}, false},
		{Columns{1, -1}, Columns{-1, -1}, false},
	} {
		if c.a.Alike(c.b) != c.want || c.b.Alike(c.a) != c.want {
			t.Errorf("%v and %v are alike: %t", c.a, c.b, !c.want)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"2024-01-02 03:04:05.123456+00", "infinity", "4714-11-24 BC", "294276-12-31 23:59:59.999999+00", "5874897-12-31"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parseTime([]byte(s))
		parseInt([]byte(s))
	})
}
