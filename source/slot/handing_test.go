package slot

import (
	"context"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/decoder"
	"github.com/pgwaltz/pgwaltz/wal"
)

func item(n int64, at wal.LSN) Item {
	return Item{Transactions: []*wal.Transaction{{EndLSN: at}}, Decoded: at, bytes: n}
}

// While nobody takes anything the queue stays within its bytes, and what was left behind at a
// stop is not overtaken by what came after it.
func TestNothingOvertakesWhatAStopLeavesBehind(t *testing.T) {
	t.Parallel()
	s := New(Config{Name: "s", QueueBytes: 100, StatusInterval: time.Millisecond})
	r := &connection{slot: s, dec: decoder.New(decoder.Config{})}
	if !r.hand(item(80, 10)) || r.hand(item(80, 20)) {
		t.Fatal("the queue does not keep its bound")
	}
	s.Drain()
	r.pending = item(80, 20)
	if err := r.flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.Taken(<-s.Items())
	r.pending = item(10, 30)
	if err := r.flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	select {
	case it := <-s.Items():
		t.Errorf("transactions up to %s went on, and those before it did not", it.Decoded)
	default:
	}
}

func TestAFullQueueEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := New(Config{Name: "s", QueueBytes: 100, StatusInterval: time.Hour})
	r := &connection{slot: s, dec: decoder.New(decoder.Config{})}
	r.hand(item(100, 10))
	ctx, cancel := context.WithCancel(context.Background())
	r.pending = item(1, 20)
	done := make(chan error, 1)
	go func() { done <- r.flush(ctx) }()
	cancel()
	if err := <-done; err == nil {
		t.Error("the flush ended without its context's error")
	}
}
