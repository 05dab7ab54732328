package pg

import (
	"context"
	"fmt"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Bytes of the header at the begin of a page of the WAL (xlog_internal.h: XLogShortPHD, and XLogLongPHD on the first page of a segment).
const (
	pageHeader    = 24
	segmentHeader = 40
)

// WALEnd is the end of this server's WAL: what is committed lies below it, also where it is not on disk yet.
//
// Where the last record ends at the end of a page, pg_current_wal_insert_lsn says where the next one will begin, behind the
// header of the page after it. Nothing reaches that position until more is written: not what is on disk, and not the
// walsender. So what it says then is the end of the page. Errors: those of the session.
func WALEnd(ctx context.Context, q Querier) (wal.LSN, error) {
	var end string
	var block, segment uint64
	err := q.QueryRow(ctx, `select pg_catalog.pg_current_wal_insert_lsn()::text, pg_catalog.current_setting('wal_block_size')::int8,
  pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size'))`).Scan(&end, &block, &segment)
	if err != nil {
		return 0, fmt.Errorf("read the end of the WAL: %w", err)
	}
	at, err := wal.ParseLSN(end)
	if err != nil {
		return 0, fmt.Errorf("read the end of the WAL: %w", err)
	}
	return recordEnd(at, block, segment), nil
}

// recordEnd is where the last record ends if the next one begins at a position.
func recordEnd(next wal.LSN, block, segment uint64) wal.LSN {
	switch {
	case block == 0 || segment == 0:
	case uint64(next)%segment == segmentHeader:
		return next - segmentHeader
	case uint64(next)%block == pageHeader && uint64(next)%segment != pageHeader:
		return next - pageHeader
	}
	return next
}
