package sidecar

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/internal/status"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/wal"
)

// lookAtSchemas opens the outbound pipe anew where it would go on naming tables by a schema that was renamed.
func (s *Sidecar) lookAtSchemas(ctx context.Context) error {
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		stale, err := s.members.LookAtSchemas(ctx, c)
		if err != nil || !stale {
			return err
		}
		s.out.mu.Lock()
		defer s.out.mu.Unlock()
		if s.out.reopen != nil {
			s.out.reopen(errAgain)
		}
		return nil
	})
}

// namesPause is between two looks at the names of all tables, unless a schema or a published table was
// altered.
const namesPause = 5 * time.Second

// lookAtNames notes what the tables are called, and lets parked changes follow those that were renamed.
// Tombstones and stored stamps stay in the ledger of the table (noteNames), which is said before. What waited may have given way to others meanwhile, so behind it
// the rows are copied, and the regions settle what differs. What is to be copied
// stands in the database, with the change of the names. Looking through what is parked takes one part in twenty of
// the time, at most; while changes follow, one half.
func (s *Sidecar) lookAtNames(ctx context.Context) error {
	waits := s.parked.Waits() || s.due.Load() > 0 || time.Since(time.Unix(0, s.dueAt.Load())) < 2*namesPause
	look := time.Since(s.named) >= namesPause
	if !waits && !look {
		return nil
	}
	if s.parked.Waits() {
		s.askFormer(ctx)
	}
	if look {
		if err := s.noteNames(ctx, s.db); err != nil {
			return err
		}
	}
	return s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if look {
				if err := s.lookAtColumns(ctx, tx); err != nil {
					return err
				}
			}
			if time.Now().Before(s.followDue) {
				return nil
			}
			more := false
			defer func(began time.Time) {
				rest := 19
				if more {
					rest = 1
				}
				s.followDue = time.Now().Add(time.Duration(rest) * time.Since(began))
			}(time.Now())
			if waits {
				var err error
				if more, err = s.followNames(ctx, tx); err != nil || more {
					return err // their tables are copied behind the last of them
				}
			}
			return s.copyFollowed(ctx, tx)
		})
		if err == nil && look {
			s.named = time.Now()
		}
		return err
	})
}

// lookAtColumns notes what columns are called. With many tables it is done more seldom: in one part in twenty of the time, at most.
func (s *Sidecar) lookAtColumns(ctx context.Context, tx pgx.Tx) error {
	began := time.Now()
	if began.Before(s.columnsDue) {
		return nil
	}
	if err := names.LookColumns(ctx, tx); err != nil {
		return err
	}
	s.columnsDue = time.Now().Add(19 * time.Since(began))
	return nil
}

// followNames gives parked changes the names that their tables have now. more says that others may be left for the next look.
func (s *Sidecar) followNames(ctx context.Context, tx pgx.Tx) (more bool, err error) {
	tables, left, err := parked.Follow(ctx, tx, s.cfg.Region, s.parked)
	if err != nil {
		return false, err
	}
	others, err := s.settleDisplaced(ctx, tx)
	if err != nil {
		return false, err
	}
	tables = append(tables, others...)
	others, l, err := s.rejoin(ctx, tx)
	if err != nil {
		return false, err
	}
	tables, left = append(tables, others...), left || l
	renamed, err := names.Former(ctx, tx)
	if err != nil {
		return false, err
	}
	var was, is []wal.RelationName
	for _, r := range renamed {
		if s.cfg.Selected(r.Is.Schema, r.Is.Name) {
			was, is = append(was, r.Was), append(is, r.Is)
		}
	}
	follow := func(origin string, was, is []wal.RelationName) error {
		if len(was) == 0 {
			return nil
		}
		others, l, err := parked.FollowNames(ctx, tx, origin, was, is, s.parked)
		tables, left = append(tables, others...), left || l
		return err
	}
	if err := follow("", was, is); err != nil {
		return false, err
	}
	for origin, f := range s.former.told {
		if err := follow(origin, f.Was, f.Is); err != nil {
			return false, err
		}
	}
	slices.SortFunc(tables, func(a, b wal.RelationName) int { return strings.Compare(a.String(), b.String()) })
	if tables = slices.Compact(tables); len(tables) == 0 {
		return left, nil
	}
	return left, names.SetDue(ctx, tx, tables)
}

// copyFollowed asks for copies of the tables whose changes by a former name, or by other stamp columns, are in.
func (s *Sidecar) copyFollowed(ctx context.Context, tx pgx.Tx) error {
	due, err := names.Due(ctx, tx)
	if err != nil {
		return err
	}
	var waits []status.Copy
	for _, n := range due {
		why, err := s.notYet(ctx, tx, n)
		if err != nil {
			return err
		}
		if why != "" {
			waits = append(waits, status.Copy{Table: n.String(), State: "waiting", Reason: why})
			continue
		}
		is, err := tablecopy.Published(ctx, tx, s.cfg.Postgres.Publication, n) // what is not sends nothing, copies neither
		if err != nil {
			return err
		}
		if is && s.cfg.Publishes() && s.cfg.Selected(n.Schema, n.Name) {
			s.log.Info("changes by a former name, or by other stamp columns, are in, or a generated column is a plain one now; the rows of the table are copied", "relation", n.String())
			// Whatever copy.mode says: that is about tables that are new.
			if _, err := tx.Exec(ctx, tablecopy.RequestSQL([]wal.RelationName{n})); err != nil {
				return fmt.Errorf("ask for a copy of %s: %w", n, err)
			}
		}
		if err := names.Settle(ctx, tx, n); err != nil {
			return err
		}
	}
	s.noteDue(waits)
	return nil
}

// notYet says why a table is not copied yet; "" when it can be. Copied while its stamp columns are others than
// in another region, it would be compared by these once more.
func (s *Sidecar) notYet(ctx context.Context, tx pgx.Tx, n wal.RelationName) (string, error) {
	if why := s.differs(n); why != "" {
		return why, nil
	}
	waits, err := parked.Unfit(ctx, tx, n)
	if err != nil {
		return "", err
	}
	if waits {
		return "changes of it are set aside that do not fit it: pgwaltz parked list", nil
	}
	t, err := pg.LoadTable(ctx, tx, n.Schema, n.Name)
	if errors.Is(err, pg.ErrNoTable) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	here := wal.Relation{}
	for _, c := range t.Columns {
		if c.Generated == 0 {
			here.Columns = append(here.Columns, wal.Column{Name: c.Name, OID: c.TypeOID})
		}
	}
	p := s.policy(n)
	for _, peer := range s.cfg.PeerNames() {
		there := s.suspectsOf(peer).Newest(n)
		if there != nil && !conflict.ColumnsOf(there, p.Version, p.UpdatedAt).Alike(conflict.ColumnsOf(&here, p.Version, p.UpdatedAt)) {
			return fmt.Sprintf("conflicts of it were decided while its stamp columns were others here than in region %s: make them alike; it is copied behind the next change that comes from there", peer), nil
		}
	}
	return "", nil
}

// noteDue keeps what the status says of tables that are copied when something has come.
func (s *Sidecar) noteDue(waits []status.Copy) {
	s.due.Store(int64(len(waits)))
	s.mu.Lock()
	s.waits = waits
	s.mu.Unlock()
}

// loadDue begins a term with the tables that are to be copied; why they wait is looked at later.
func (s *Sidecar) loadDue(ctx context.Context, q names.Querier) error {
	due, err := names.Due(ctx, q)
	if err != nil {
		return err
	}
	s.noteDue(nil)
	s.due.Store(int64(len(due)))
	return nil
}

// dueCopies is what appliers ask for copies of tables.
type dueCopies struct{ s *Sidecar }

func (d dueCopies) SetDue(ctx context.Context, conn *pgx.Conn, tables []wal.RelationName) error {
	d.s.due.Add(1) // counted anew by the next looks
	d.s.dueAt.Store(time.Now().UnixNano())
	return names.SetDue(ctx, conn, tables)
}
