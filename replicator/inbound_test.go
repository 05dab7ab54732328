package replicator

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/sink/apply"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

// partsApplier notes when a transaction in parts is open and when it is given back.
type partsApplier struct {
	open      bool
	begun     time.Time
	abandoned []time.Duration
	committed int
	givesWay  func() bool
}

func (a *partsApplier) Open(context.Context) (checkpoint.Checkpoint, error) {
	return checkpoint.Checkpoint{}, nil
}

func (a *partsApplier) Apply(_ context.Context, units []apply.Unit) error {
	for _, u := range units {
		for _, tx := range u.Transactions {
			if a.open = tx.More; a.open {
				a.begun = time.Now()
			} else {
				a.committed++
			}
		}
	}
	return nil
}

func (a *partsApplier) InParts() bool { return a.open }

func (a *partsApplier) GivesWay() bool { return a.open && a.givesWay != nil && a.givesWay() }

func (a *partsApplier) Abandon(context.Context) error {
	if a.open {
		a.abandoned = append(a.abandoned, time.Since(a.begun))
	}
	a.open = false
	return nil
}

func (a *partsApplier) Checkpoint() checkpoint.Checkpoint { return checkpoint.Checkpoint{} }
func (a *partsApplier) Close()                            {}

// feed is a stream that a function delivers; its origin is never known to be in reach.
type feed func(ctx context.Context, deliver func(context.Context, subscribe.Delivery) error) error

func (f feed) Subscribe(ctx context.Context, _ checkpoint.Checkpoint, deliver func(context.Context, subscribe.Delivery) error) error {
	return f(ctx, deliver)
}
func (f feed) Coming() bool { return false }

// heard counts what a pipe tells of its progress.
type heard struct{ before, parts, applied, committed int }

func (h *heard) Before(subscribe.Delivery)          { h.before++ }
func (h *heard) Part(subscribe.Delivery)            { h.parts++ }
func (h *heard) Applied(batch []subscribe.Delivery) { h.applied += len(batch) }
func (h *heard) Committed(cp checkpoint.Checkpoint) { h.committed++ }

// What is applied of a giant transaction is given back when the rest does not come, ever later, and
// the transaction goes in once the link is that fast.
func TestPartsAreGivenBackWhileTheRestDoesNotCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, told := &partsApplier{}, heard{}
		part := func(more bool) subscribe.Delivery {
			tx := &wal.Transaction{More: more}
			return subscribe.Delivery{Packet: &wire.Packet{Transactions: []*wal.Transaction{tx}}}
		}
		gap := 50 * time.Second // between two parts
		p := NewInbound(InboundConfig{
			Applier: a, Progress: &told,
			Feed: feed(func(ctx context.Context, deliver func(context.Context, subscribe.Delivery) error) error {
				for _, more := range []bool{true, true, false} {
					if err := deliver(ctx, part(more)); err != nil {
						return err
					}
					select {
					case <-ctx.Done():
						return context.Cause(ctx)
					case <-time.After(gap):
					}
				}
				<-ctx.Done()
				return context.Cause(ctx)
			}),
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_ = p.Run(ctx)
		if want := []time.Duration{15 * time.Second, 30 * time.Second}; len(a.abandoned) != 2 || a.abandoned[0] != want[0] || a.abandoned[1] != want[1] {
			t.Errorf("given back after %v, want %v", a.abandoned, want)
		}
		if a.committed != 1 || a.open {
			t.Errorf("%d transactions are committed, open %t", a.committed, a.open)
		}
		// Of three runs, two end behind a part or two; each begins with the checkpoint.
		if told.applied != 1 || told.committed != 4 || told.parts != told.before-1 || told.parts < 4 {
			t.Errorf("the pipe told %+v", told)
		}
	})
}

// A giant transaction whose next part does not come is given back at once when an earlier one waits for
// it; with the next try it comes whole.
func TestPartsGiveWayWhileTheRestDoesNotCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, told, tries := &partsApplier{}, heard{}, 0
		a.givesWay = func() bool { return time.Since(a.begun) >= 5*time.Second }
		p := NewInbound(InboundConfig{
			Applier: a, Progress: &told,
			Feed: feed(func(ctx context.Context, deliver func(context.Context, subscribe.Delivery) error) error {
				tries++
				for _, more := range []bool{true, false} {
					tx := &wal.Transaction{More: more}
					if err := deliver(ctx, subscribe.Delivery{Packet: &wire.Packet{Transactions: []*wal.Transaction{tx}}}); err != nil {
						return err
					}
					if tries == 1 {
						break
					}
				}
				<-ctx.Done()
				return context.Cause(ctx)
			}),
		})
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
		defer cancel()
		_ = p.Run(ctx)
		if len(a.abandoned) != 1 || a.abandoned[0] != 5*time.Second || a.committed != 1 || tries != 2 {
			t.Errorf("given back after %v, %d committed, %d tries", a.abandoned, a.committed, tries)
		}
	})
}

// stuckApplier takes a batch and does not come back.
type stuckApplier struct{ partsApplier }

func (a *stuckApplier) Apply(ctx context.Context, _ []apply.Unit) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// What is read ahead of a batch is bounded by what it takes in memory, long before it is by how many deliveries it is.
func TestReadingAheadIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ bytes, most int }{{100, aheadFrames + 1}, {aheadBytes / 2, 3}, {8 * aheadBytes, 2}} {
		synctest.Test(t, func(t *testing.T) {
			read := 0
			p := NewInbound(InboundConfig{
				Applier: &stuckApplier{}, BatchRows: 1, Progress: &heard{},
				Feed: feed(func(ctx context.Context, deliver func(context.Context, subscribe.Delivery) error) error {
					for {
						tx := &wal.Transaction{Changes: []wal.Change{{Op: wal.Truncate, Relation: &wal.Relation{}}}}
						if err := deliver(ctx, subscribe.Delivery{Packet: &wire.Packet{Transactions: []*wal.Transaction{tx}}, Bytes: c.bytes}); err != nil {
							return err
						}
						read++
					}
				}),
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- p.Run(ctx) }()
			synctest.Wait()
			if read != c.most {
				t.Errorf("deliveries of %d bytes: %d were read, want %d", c.bytes, read, c.most)
			}
			cancel()
			<-done
		})
	}
}

// slowApplier takes a second for each batch, however large it is, and notes how large they are.
type slowApplier struct {
	partsApplier
	sizes []int
}

func (a *slowApplier) Apply(_ context.Context, units []apply.Unit) error {
	a.sizes = append(a.sizes, len(units))
	<-time.After(time.Second)
	return nil
}

// Where every batch has to wait, as it does for own changes while the own stream is full, the next one takes
// all that came meanwhile.
func TestABatchTakesWhatCameMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &slowApplier{}
		p := NewInbound(InboundConfig{
			Applier: a, Progress: &heard{},
			Feed: feed(func(ctx context.Context, deliver func(context.Context, subscribe.Delivery) error) error {
				for range 600 {
					tx := &wal.Transaction{Changes: []wal.Change{{Op: wal.Truncate, Relation: &wal.Relation{}}}}
					if err := deliver(ctx, subscribe.Delivery{Packet: &wire.Packet{Transactions: []*wal.Transaction{tx}}, Bytes: 2000}); err != nil {
						return err
					}
				}
				<-ctx.Done()
				return context.Cause(ctx)
			}),
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_ = p.Run(ctx)
		all := 0
		for _, n := range a.sizes {
			all += n
		}
		if all != 600 || len(a.sizes) > 3 {
			t.Errorf("600 small frames were applied in batches of %v", a.sizes)
		}
	})
}
