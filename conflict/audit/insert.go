package audit

import (
	"encoding/hex"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// InsertSQL writes any number of records in one statement; InsertArgs makes its arguments.
// Every argument is an array, one element per record, so that the text never changes and is
// prepared once. It belongs into the transaction that applies the decisions. A record whose
// event id is in the log already is left out, which is what redelivery needs. It returns type and
// table of each row that it wrote: Tally counts them.
const InsertSQL = `INSERT INTO pgwaltz.conflict (event_id, region, schema_name, table_name, key, type, verdict, reason, winner, loser,
 local_stamp, remote_stamp, base_stamp, local_row, remote_row, origin, origin_xid, commit_lsn, commit_time, local_xid, local_lsn)
SELECT r.event_id::uuid, r.region, r.schema_name, r.table_name, r.key::jsonb, r.type, r.verdict, r.reason, r.winner, r.loser,
 r.local_stamp, r.remote_stamp, r.base_stamp, r.local_row::jsonb, r.remote_row::jsonb, r.origin, r.origin_xid, r.commit_lsn::pg_lsn, r.commit_time,
 pg_current_xact_id()::text::bigint, pg_current_wal_insert_lsn()
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
 $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::bigint[], $18::text[], $19::timestamptz[])
 AS r(event_id, region, schema_name, table_name, key, type, verdict, reason, winner, loser,
 local_stamp, remote_stamp, base_stamp, local_row, remote_row, origin, origin_xid, commit_lsn, commit_time)
ON CONFLICT (event_id) DO NOTHING
RETURNING type, schema_name || '.' || table_name`

// InsertArgs returns the arguments of InsertSQL for records. Empty strings of winner, loser
// and stamps, nil images and the zero time become NULL.
func InsertArgs(records []Record) []any {
	n := len(records)
	text := make([][]*string, 18) // the images and the xid are not here
	for i := range text {
		text[i] = make([]*string, n)
	}
	images := [2][][]byte{make([][]byte, n), make([][]byte, n)} // may be large, and are not copied
	xids := make([]int64, n)
	times := make([]*time.Time, n)
	for i := range records {
		r := &records[i]
		columns := [18]*string{
			ref(uuidText(r.EventID)), ref(r.Region), ref(r.Relation.Schema), ref(r.Relation.Name), ref(string(r.Key)),
			ref(r.Type), ref(r.Verdict), ref(r.Reason), orNull(r.Winner), orNull(r.Loser),
			orNull(r.LocalStamp), orNull(r.RemoteStamp), orNull(r.BaseStamp), nil, nil,
			ref(r.Origin), nil, ref(r.CommitLSN.String()),
		}
		for c, v := range columns {
			text[c][i] = v
		}
		images[0][i], images[1][i] = r.LocalRow, r.RemoteRow
		xids[i] = int64(r.OriginXID)
		if r.CommitTime != 0 && r.CommitTime != wal.MinMicros && r.CommitTime != wal.MaxMicros {
			t := r.CommitTime.Time()
			times[i] = &t
		}
	}
	args := make([]any, 0, 19)
	for c := range text {
		switch c {
		case 13, 14:
			args = append(args, images[c-13])
		case 16:
			args = append(args, xids)
		default:
			args = append(args, text[c])
		}
	}
	return append(args, times)
}

func ref(s string) *string { return &s }

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func uuidText(id [16]byte) string {
	var b [36]byte
	hex.Encode(b[0:8], id[0:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:36], id[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// DiscardInto begins the statement that writes parked changes into the log which an operator
// discards; a select of these columns follows.
const DiscardInto = `insert into pgwaltz.conflict (event_id, region, schema_name, table_name, key, type, verdict, reason, remote_row, origin, commit_lsn)`
