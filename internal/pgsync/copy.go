package pgsync

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/source/poll"
	"github.com/pgwaltz/pgwaltz/wal"
)

// copy stages the tables that are copied as a whole and applies them at once: they show all of it or nothing.
func (p *pass) copy(ctx context.Context) error {
	var fresh []*table
	for _, t := range p.tables {
		if !t.fresh {
			continue
		}
		fresh = append(fresh, t)
		if err := p.stage(ctx, t); err != nil {
			return err
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	at, err := p.applyStaged(ctx, fresh)
	for n := 1; errors.Is(err, apply.ErrStartAgain) || errors.Is(err, apply.ErrParts); n++ {
		// A lock or a writer stood in the way; all of it was rolled back.
		if err := pause.For(ctx, min(time.Duration(n)*100*time.Millisecond, 5*time.Second)); err != nil {
			return err
		}
		at, err = p.applyStaged(ctx, fresh)
	}
	if err != nil {
		return err
	}
	var done []*poll.State
	for _, t := range fresh {
		t.state.Phase, t.state.Seen, t.state.Swept, t.state.LastKey, t.state.Pages = poll.Done, at, time.Now(), nil, 0
		t.read = t.state.Rows
		done = append(done, t.state)
	}
	return poll.Finish(ctx, p.destination, p.job.Name, done...)
}

// stage reads the pages of a table that are not in the stage yet.
func (p *pass) stage(ctx context.Context, t *table) error {
	pages := t.Pages(p.job.BatchSize)
	for t.state.Phase == poll.Copying {
		rows, last, err := pages.Page(ctx, p.source, t.state.LastKey)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			t.state.Phase = poll.Whole
			return poll.Save(ctx, p.destination, t.state)
		}
		if err := poll.Stage(ctx, p.destination, t.state, rows, last); err != nil {
			return err
		}
	}
	return nil
}

// applyStaged applies what is staged, and behind it what changed in the source since, as one transaction. It returns the
// snapshot up to which the source was read.
func (p *pass) applyStaged(ctx context.Context, fresh []*table) (at poll.Snapshot, err error) {
	if _, err := p.source.Exec(ctx, "begin isolation level repeatable read read only"); err != nil {
		return at, fmt.Errorf("read the source: %w", err)
	}
	defer p.source.Exec(context.WithoutCancel(ctx), "rollback")
	if at, err = poll.Now(ctx, p.source); err != nil {
		return at, err
	}
	var held []wal.Change // one part behind, because the last one has to be known as such
	part := func(t *table, rows []wal.Tuple, time wal.Micros) error {
		if len(rows) == 0 {
			return nil
		}
		changes, err := t.Changes(ctx, p.destination, rows, time)
		if err != nil {
			return err
		}
		if held != nil {
			if err := p.sink.applyPart(ctx, held, at.Time(), false); err != nil {
				return err
			}
		}
		held = changes
		return nil
	}
	// Each row comes once: of two that have one stamp nothing says which one is newer.
	since := make([]*poll.Written, len(fresh))
	for i, t := range fresh {
		if since[i], err = t.Written(ctx, p.source, t.state, p.job.BatchSize); err != nil {
			return at, err
		}
		for page := range t.state.Pages {
			rows, err := poll.Staged(ctx, p.destination, t.state, page, len(t.Rel.Columns))
			if err != nil {
				return at, err
			}
			rows, now, err := since[i].Instead(ctx, p.source, rows)
			if err != nil {
				return at, err
			}
			if err := part(t, rows, t.state.Seen.Time()); err != nil {
				return at, err
			}
			if err := part(t, now, at.Time()); err != nil {
				return at, err
			}
		}
	}
	for i, t := range fresh {
		if err := t.Changed(ctx, p.source, t.state, false, p.job.BatchSize, func(rows []wal.Tuple) error { return part(t, since[i].Left(rows), at.Time()) }); err != nil {
			return at, err
		}
	}
	if held == nil {
		return at, nil
	}
	return at, p.sink.applyPart(ctx, held, at.Time(), true)
}
