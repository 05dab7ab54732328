package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/internal/fallback/pglogical"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/wal"
)

// pieces is how many pieces of the server's log are read at one look, so that the others are not kept waiting.
const pieces = 4

// countConflicts begins the count of the audit log with what stands there.
func (s *Supervisor) countConflicts(ctx context.Context, conn *pgx.Conn) error {
	stats, err := audit.ReadStats(ctx, conn)
	if err != nil {
		return err
	}
	c := status.Conflicts{Total: uint64(stats.Total), ByType: map[string]uint64{}, LastAt: stats.LastAt, Last: stats.Last}
	for kind, n := range stats.ByType {
		c.ByType[kind] = uint64(n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conflicts = c
	return nil
}

// counted adds what was written into the audit log.
func (s *Supervisor) counted(t audit.Tally) {
	if t.Total() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	by := maps.Clone(s.conflicts.ByType) // the old one may be read
	if by == nil {
		by = map[string]uint64{}
	}
	for kind, n := range t.ByType {
		by[kind] += n
	}
	now := time.Now()
	s.conflicts = status.Conflicts{Total: s.conflicts.Total + t.Total(), ByType: by, LastAt: &now, Last: t.Last}
}

// reported writes down the conflicts that pglogical has told the server's log since the last look. unknown says why that cannot be, in words
// for the status. Where the log could not be written to, the same piece is read again at the next look.
func (w *pglogicalWatcher) reported(ctx context.Context, here *pgx.Conn) (t audit.Tally, unknown string, err error) {
	if len(w.slots) == 0 {
		return t, "", nil
	}
	peers, err := w.origins(ctx, here)
	if err != nil {
		return t, "", err
	}
	for range pieces {
		before := *w.told
		texts, more, err := w.told.Next(ctx, here)
		if errors.Is(err, pglogical.ErrUnread) {
			return t, "conflicts are in the server's log only: " + err.Error(), nil
		}
		if err == nil {
			var n audit.Tally
			n, err = w.write(ctx, here, texts, peers)
			t.Add(n)
		}
		if err != nil {
			*w.told = before
			return t, "", err
		}
		if !more {
			break
		}
	}
	return t, "", nil
}

// origins are the peers by the numbers that replication origins have on this server.
func (w *pglogicalWatcher) origins(ctx context.Context, here *pgx.Conn) (map[uint32]string, error) {
	peers := map[uint32]string{}
	for peer, slot := range w.slots {
		rows, err := here.Query(ctx, `select roident::bigint from pg_catalog.pg_replication_origin where roname = $1`, slot)
		if err != nil {
			return nil, fmt.Errorf("read replication origins: %w", err)
		}
		var n int64
		if _, err := pgx.ForEachRow(rows, []any{&n}, func() error {
			peers[uint32(n)] = peer
			return nil
		}); err != nil {
			return nil, fmt.Errorf("read replication origins: %w", err)
		}
	}
	return peers, nil
}

// write puts conflicts of the peers into the audit log. One that is there already is left out; so are those that retention would remove.
func (w *pglogicalWatcher) write(ctx context.Context, here *pgx.Conn, texts []string, peers map[uint32]string) (t audit.Tally, err error) {
	tables := map[wal.RelationName]*pg.Table{}
	redact := audit.NewRedactor(w.cfg.Audit.Redact)
	var records []audit.Record
	seen := map[[16]byte]bool{}
	for _, text := range texts {
		c, ok := pglogical.Parse(text)
		peer := peers[c.Origin]
		if !ok || peer == "" || w.cfg.Audit.Retention > 0 && !c.Since(time.Now().Add(-w.cfg.Audit.Retention)) {
			continue
		}
		table, known := tables[c.Relation]
		if !known {
			if table, err = pg.LoadTable(ctx, here, c.Relation.Schema, c.Relation.Name); err != nil {
				table = nil // it was dropped since, or is not to be seen: the row is told without it
			}
			tables[c.Relation] = table
		}
		r := c.Record(w.cfg.Region, peer, table, redact)
		if seen[r.EventID] = true; !w.written[r.EventID] {
			records = append(records, r)
		}
	}
	if len(records) > 0 {
		rows, err := here.Query(ctx, audit.InsertSQL, audit.InsertArgs(records)...)
		if err == nil {
			err = t.Read(rows)
		}
		if err != nil {
			return t, fmt.Errorf("write what the server's log tells into the audit log: %w", err)
		}
	}
	if len(texts) > 0 {
		w.written = seen // what comes again comes with the next piece
	}
	return t, nil
}
