package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/wal"
)

func record(id byte, kind string) audit.Record {
	return audit.Record{
		EventID: [16]byte{15: id}, Region: "us", Relation: wal.RelationName{Schema: "public", Name: "users"},
		Key: []byte(`{"uuid":"k` + string('0'+rune(id)) + `"}`), Type: kind, Verdict: "apply", Reason: "higher version",
		Winner: "eu", Loser: "us", LocalStamp: "0/1/2024", RemoteStamp: "0/2/2024",
		LocalRow: []byte(`{"uuid":"k","name":"old","n":1}`), RemoteRow: []byte(`{"uuid":"k","name":"new","n":1}`),
		Origin: "eu", OriginXID: 4294967295, CommitLSN: 0x16B3748, CommitTime: 1704067200000000,
	}
}

func insert(t *testing.T, q audit.Querier, records ...audit.Record) int64 {
	t.Helper()
	tag, err := q.Exec(t.Context(), audit.InsertSQL, audit.InsertArgs(records)...)
	if err != nil {
		t.Fatal(err)
	}
	return tag.RowsAffected()
}

func TestInsertIsIdempotentPerEvent(t *testing.T) {
	t.Parallel()
	conn := database(t)
	if n := insert(t, conn, record(1, "update_origin_differs"), record(2, "insert_exists")); n != 2 {
		t.Fatalf("inserted %d", n)
	}
	if n := insert(t, conn, record(2, "insert_exists"), record(3, "update_deleted")); n != 1 {
		t.Fatalf("a redelivered event added rows: %d", n)
	}
	if n := insert(t, conn); n != 0 {
		t.Fatalf("no records inserted %d rows", n)
	}
}

func TestInsertWorksInABatch(t *testing.T) {
	t.Parallel()
	conn := database(t)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b pgx.Batch
	b.Queue(audit.InsertSQL, audit.InsertArgs([]audit.Record{record(1, "insert_exists")})...)
	if err := tx.SendBatch(t.Context(), &b).Close(); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	row, err := audit.Get(t.Context(), conn, "1")
	if err != nil {
		t.Fatal(err)
	}
	if row.OriginXID != 4294967295 || row.CommitLSN != "0/16B3748" || row.LocalXID == 0 || row.LocalLSN == "" ||
		!row.CommitTime.Equal(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)) || row.BaseStamp != "" {
		t.Fatalf("row %+v", row)
	}
}

func TestInsertKeepsAbsentImagesNull(t *testing.T) {
	t.Parallel()
	conn := database(t)
	r := record(1, "update_deleted")
	r.LocalRow, r.CommitTime = nil, wal.MinMicros
	insert(t, conn, r)
	row, err := audit.Get(t.Context(), conn, "00000000-0000-0000-0000-000000000001")
	if err != nil {
		t.Fatal(err)
	}
	if row.LocalRow != nil || row.RemoteRow == nil || row.CommitTime != nil {
		t.Fatalf("row %+v", row)
	}
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	conn := database(t)
	other := record(3, "insert_exists")
	other.Relation = wal.RelationName{Schema: "app", Name: "users"}
	other.Verdict = "keep"
	insert(t, conn, record(1, "update_origin_differs"), record(2, "insert_exists"), other)
	if _, err := conn.Exec(t.Context(), "UPDATE pgwaltz.conflict SET detected_at = now() - interval '2 hours' WHERE id = 1"); err != nil {
		t.Fatal(err)
	}
	hourAgo := time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		filter audit.Filter
		want   string
	}{
		"all, newest first":   {audit.Filter{}, "3,2,1"},
		"table":               {audit.Filter{Table: "users"}, "3,2,1"},
		"schema and table":    {audit.Filter{Table: "public.users"}, "2,1"},
		"key value":           {audit.Filter{Key: "k2"}, "2"},
		"key object":          {audit.Filter{Key: `{"uuid": "k3"}`}, "3"},
		"type":                {audit.Filter{Type: "insert_exists"}, "3,2"},
		"verdict":             {audit.Filter{Verdict: "keep"}, "3"},
		"since":               {audit.Filter{Since: hourAgo}, "3,2"},
		"until":               {audit.Filter{Until: hourAgo}, "1"},
		"limit":               {audit.Filter{Limit: 1}, "3"},
		"after, oldest first": {audit.Filter{AfterID: 1}, "2,3"},
		"together":            {audit.Filter{Table: "public.users", Type: "insert_exists", Limit: 5}, "2"},
		"not SQL":             {audit.Filter{Key: "' or true --"}, ""},
	} {
		rows, err := audit.List(t.Context(), conn, c.filter)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var ids []string
		for _, r := range rows {
			ids = append(ids, string('0'+rune(r.ID)))
		}
		if got := strings.Join(ids, ","); got != c.want {
			t.Errorf("%s: ids %s, want %s", name, got, c.want)
		}
	}
}

func TestGetUnknown(t *testing.T) {
	t.Parallel()
	conn := database(t)
	for _, id := range []string{"7", "00000000-0000-0000-0000-000000000009", "what"} {
		if _, err := audit.Get(t.Context(), conn, id); !errors.Is(err, audit.ErrNotFound) {
			t.Errorf("Get(%q): %v", id, err)
		}
	}
}

func TestPruneKeepsWhatIsYoung(t *testing.T) {
	t.Parallel()
	conn := database(t)
	fill := func() {
		if _, err := conn.Exec(t.Context(), `INSERT INTO pgwaltz.conflict (event_id, detected_at)
		SELECT gen_random_uuid(), now() - make_interval(mins => (4999 - i) / 2) FROM generate_series(0, 4999) i`); err != nil {
			t.Fatal(err)
		}
	}
	fill()
	if n, err := audit.Prune(t.Context(), conn, 0); n != 0 || err != nil {
		t.Fatalf("retention 0 deleted %d, error %v", n, err)
	}
	// Nobody may ask for less than setup has allowed.
	if n, err := audit.Prune(t.Context(), conn, time.Nanosecond); n != 4998 || err != nil {
		t.Fatalf("a retention below the function's deleted %d, error %v", n, err)
	}
	if _, err := conn.Exec(t.Context(), `TRUNCATE pgwaltz.conflict`); err != nil {
		t.Fatal(err)
	}
	fill()
	n, err := audit.Prune(t.Context(), conn, 1249*time.Minute+30*time.Second)
	if err != nil || n != 2500 {
		t.Fatalf("deleted %d, error %v", n, err)
	}
	s, err := audit.ReadStats(t.Context(), conn)
	if err != nil || s.Total != 2500 {
		t.Fatalf("%d rows left, error %v", s.Total, err)
	}
}

func TestReadStats(t *testing.T) {
	t.Parallel()
	conn := database(t)
	if s, err := audit.ReadStats(t.Context(), conn); err != nil || s.Total != 0 || s.LastAt != nil {
		t.Fatalf("empty log: %+v, error %v", s, err)
	}
	insert(t, conn, record(1, "update_deleted"), record(2, "insert_exists"), record(3, "insert_exists"))
	s, err := audit.ReadStats(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	if s.Total != 3 || s.ByType["insert_exists"] != 2 || s.ByVerdict["apply"] != 3 || s.Last != "insert_exists on public.users" || s.LastAt == nil {
		t.Fatalf("%+v", s)
	}
}

// TestImagesEqualToJsonb holds Imager against the server: the same row through to_jsonb and
// through the log's text and binary forms.
func TestImagesEqualToJsonb(t *testing.T) {
	t.Parallel()
	conn := database(t)
	ctx := t.Context()
	if _, err := conn.Exec(ctx, `SET timezone = 'UTC'; CREATE TABLE t (b bool, i2 int2, i4 int4, i8 int8, n numeric, nan numeric, f4 float4, f8 float8, big float8,
		x text, u uuid, by bytea, ts timestamp, tz timestamptz, inf timestamptz, bc timestamptz, d date, j json, jb jsonb, z text);
		INSERT INTO t VALUES (true, -2, 4, 9007199254740993, 12.50, 'NaN', 1.5, -0.25, 1e200, E'a"\\\n<é>', '00000000-0000-0000-0000-00000000000a', '\x00ff',
		'2024-02-03 04:05:06', '2024-02-03 04:05:06.123456+00', 'infinity', '0044-03-15 00:00:00+00 BC', '2024-02-03', '{"a": [1, "x"]}', '{"k": null}', NULL)`); err != nil {
		t.Fatal(err)
	}
	var want string
	if err := conn.QueryRow(ctx, "SELECT to_jsonb(t)::text FROM t").Scan(&want); err != nil {
		t.Fatal(err)
	}
	for _, format := range []int16{pgx.TextFormatCode, pgx.BinaryFormatCode} {
		result := conn.PgConn().ExecParams(ctx, "SELECT * FROM t", nil, nil, nil, []int16{format}).Read()
		if result.Err != nil {
			t.Fatal(result.Err)
		}
		rel, tuple := &wal.Relation{Schema: "public", Name: "t"}, wal.Tuple{}
		for i, f := range result.FieldDescriptions {
			rel.Columns = append(rel.Columns, wal.Column{Name: f.Name, OID: f.DataTypeOID})
			v := wal.Value{Kind: wal.Text, Bytes: result.Rows[0][i]}
			switch {
			case v.Bytes == nil:
				v.Kind = wal.Null
			case format == pgx.BinaryFormatCode:
				v.Kind = wal.Binary
			}
			tuple = append(tuple, v)
		}
		image := audit.NewImager(nil).Row(nil, rel, tuple)
		var got string
		if err := conn.QueryRow(ctx, "SELECT $1::text::jsonb::text", string(image)).Scan(&got); err != nil {
			t.Fatalf("format %d: %v in %s", format, err, image)
		}
		if got != want {
			t.Errorf("format %d\n got %s\nwant %s", format, got, want)
		}
	}
}

func TestHostileJSONIsStored(t *testing.T) {
	t.Parallel()
	conn := database(t)
	rel := &wal.Relation{Schema: "public", Name: "t", Columns: []wal.Column{{Name: "a\"\\", OID: 114}}}
	for _, text := range []string{`"\u0000"`, `"\ud800"`, `1e999999`, `[1,{"a":-1E-99999}]`, `not json`, "\xff", `"\\u0000"`} {
		image := audit.NewImager(nil).Row(nil, rel, wal.Tuple{{Kind: wal.Text, Bytes: []byte(text)}})
		if _, err := conn.Exec(t.Context(), "SELECT $1::text::jsonb", string(image)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestDiffMarksWinnerAndColumns(t *testing.T) {
	t.Parallel()
	conn := database(t)
	insert(t, conn, record(1, "update_origin_differs"))
	row, err := audit.Get(t.Context(), conn, "1")
	if err != nil {
		t.Fatal(err)
	}
	diffs, err := audit.Diff(row)
	if err != nil {
		t.Fatal(err)
	}
	var differing []string
	for _, d := range diffs {
		if d.Differs {
			differing = append(differing, d.Column)
		}
	}
	if strings.Join(differing, ",") != "name" || len(diffs) != 3 {
		t.Fatalf("diffs %+v", diffs)
	}
	var out bytes.Buffer
	if err := audit.WriteDiff(&out, row); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"local us (loser)", "remote eu (winner)", `*  name`, `"old"`, `"new"`, "apply the remote change: higher version"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if b, err := json.Marshal(row); err != nil || !json.Valid(b) {
		t.Fatalf("marshal: %v", err)
	}
}

func TestLocalRegion(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		row  audit.Row
		want string
	}{
		"a peer's event":           {audit.Row{Region: "eu", Origin: "us", Winner: "us", Loser: "eu"}, "eu"},
		"a peer's event, parked":   {audit.Row{Region: "eu", Origin: "us"}, "eu"},
		"an own event that won":    {audit.Row{Region: "eu", Origin: "eu", Winner: "eu", Loser: "us"}, "us"},
		"an own event that lost":   {audit.Row{Region: "eu", Origin: "eu", Winner: "us", Loser: "eu"}, "us"},
		"an own event, no verdict": {audit.Row{Region: "eu", Origin: "eu"}, "eu"},
	} {
		if got := c.row.LocalRegion(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
