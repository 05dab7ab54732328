package copy

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/wal"
)

// ahead reads one chunk while the one before it is sent.
type ahead struct {
	chunks chan rows // one waits, one is being read
	failed chan error
	cancel context.CancelFunc
	done   chan struct{}
}

// readAhead reads at most most rows at once. It begins behind the key after and ends with the table. The session is its own until
// close has returned.
func (p *plan) readAhead(ctx context.Context, conn *pgx.Conn, cfg Config, after []string, most int) *ahead {
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{chunks: make(chan rows), failed: make(chan error, 1), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		for limit := min(firstLimit, most); ; {
			read, err := p.read(ctx, conn, cfg.Index, after, limit)
			if err != nil {
				a.failed <- err
				return
			}
			after, limit = read.last, read.nextLimit(limit, most)
			read.tx.Changes = slices.DeleteFunc(read.tx.Changes, func(ch wal.Change) bool { return cfg.Arrived.take(&ch) })
			select {
			case a.chunks <- read:
			case <-ctx.Done():
				return
			}
			if !read.more {
				return
			}
		}
	}()
	return a
}

func (a *ahead) next(ctx context.Context) (rows, error) {
	select {
	case read := <-a.chunks:
		return read, nil
	case err := <-a.failed:
		return rows{}, err
	case <-ctx.Done():
		return rows{}, context.Cause(ctx)
	}
}

func (a *ahead) close() {
	a.cancel()
	<-a.done
}
