package pgsync

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/source/poll"
	"github.com/pgwaltz/pgwaltz/wal"
)

// plan finds out which tables are copied as a whole: with once all, unless an earlier copy was not finished, which goes on;
// else those that were never copied, or of which it cannot be told what changed.
func (p *pass) plan(ctx context.Context) error {
	states, err := poll.Load(ctx, p.destination, p.job.Name)
	if err != nil {
		return err
	}
	whole, err := poll.Settle(ctx, p.destination, states)
	if err != nil {
		return err
	}
	now, err := poll.Now(ctx, p.source)
	if err != nil {
		return err
	}
	if err := p.wentBack(now, states); err != nil {
		return err
	}
	good := func(s *poll.State) bool { return s != nil && s.Source == p.id && now.Reaches(s.Seen) }
	resume := false
	for _, t := range p.tables {
		t.state = states[t.Rel.Ref()]
		resume = resume || whole && good(t.state) && t.state.Phase != poll.Done && t.state.Pages > 0
	}
	var begun []*poll.State
	for _, t := range p.tables {
		s, id := t.state, wal.TableOf(t.Rel.Columns[0].ID)
		t.remade = s != nil && s.SourceID != id
		open := s != nil && s.Phase != poll.Done
		switch {
		case good(s) && !t.remade && whole && open && s.Shape == t.Shape(): // goes on
		case good(s) && !open && !p.once && (t.remade || s.Shape == t.Shape() || !p.job.Snapshot):
			if t.remade {
				p.log.Warn("the table is another one than the one that was copied; nothing is deleted before --once was run", "table", t.Rel.String())
			}
			continue
		case !p.once && s == nil && !p.job.Snapshot:
			t.state = &poll.State{Job: p.job.Name, Table: t.Rel.Ref(), Source: p.id, SourceID: id, Phase: poll.Done, Seen: now, Swept: time.Now(), Shape: t.Shape()}
			begun = append(begun, t.state)
			continue
		default:
			switch {
			case s == nil || open || p.once:
			case good(s): // rows that were copied before lack values
				p.log.Info("other columns are copied than before; the table is copied as a whole", "table", t.Rel.String())
			default:
				p.log.Warn("what changed cannot be told; the table is copied as a whole", "table", t.Rel.String())
			}
			// Another database may be one that somebody named by mistake: what it does not have stays until --once says that it is meant.
			strange := s != nil && !p.once && (t.remade || !sameDatabase(s.Source, p.id))
			t.state = &poll.State{Job: p.job.Name, Table: t.Rel.Ref(), Source: p.id, SourceID: id, Phase: poll.Copying, Seen: now, Swept: time.Now(), Shape: t.Shape()}
			if t.remade = strange; strange {
				t.state.SourceID = 0
				p.log.Warn("the table is another one than the one that was copied; nothing is deleted before --once was run", "table", t.Rel.String())
			}
			begun = append(begun, t.state)
		}
		t.fresh = true
	}
	if resume {
		p.log.Info("a copy that was not finished goes on")
	}
	return poll.Begin(ctx, p.destination, begun...)
}

// wentBack is an error where the source is a standby that does not show yet what was read before, from another standby or from the primary:
// what it does not have yet would be taken for deleted.
func (p *pass) wentBack(now poll.Snapshot, states map[wal.RelationName]*poll.State) error {
	if !p.from.InRecovery {
		return nil
	}
	for _, s := range states {
		if s.Source == p.id && !now.Reaches(s.Seen) && s.Seen.Reaches(now) {
			return errors.New("the source is a standby that is behind what was read before; nothing is copied until it has caught up")
		}
	}
	return nil
}

// sameDatabase reports whether two ids are of one database, before and behind a failover perhaps.
func sameDatabase(a, b string) bool {
	as, a, _ := strings.Cut(a, "/")
	bs, b, _ := strings.Cut(b, "/")
	_, a, _ = strings.Cut(a, "/")
	_, b, _ = strings.Cut(b, "/")
	return as == bs && a == b
}
