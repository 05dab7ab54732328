package batch

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

func packet(rows int) []*wal.Transaction {
	return []*wal.Transaction{{CommitLSN: 100, EndLSN: 150, Changes: make([]wal.Change, rows)}}
}

func TestGatheringTakesPacketsUpToItsLimit(t *testing.T) {
	t.Parallel()
	g := Gathering{Limit: 500}
	for i, c := range []struct {
		rows int
		take bool
		busy bool
		full bool
	}{{150, true, false, false}, {100, true, true, false}, {300, true, true, true}, {1, false, true, true}} {
		if got := g.Take(packet(c.rows), false); got != c.take || g.Busy() != c.busy || g.Full() != c.full {
			t.Errorf("packet %d: taken %v, busy %v, full %v", i, got, g.Busy(), g.Full())
		}
	}
}

func TestGatheringIsFullByBytes(t *testing.T) {
	t.Parallel()
	wide := func(size int) []*wal.Transaction {
		txs := packet(1)
		txs[0].Changes[0].New = wal.Tuple{{Kind: wal.Text, Bytes: make([]byte, size-40)}}
		txs[0].Changes[0].Old = wal.Tuple{{Kind: wal.Text, Bytes: make([]byte, 40)}}
		return txs
	}
	g := Gathering{Limit: 500, Bytes: 1000}
	for i, c := range []struct {
		size       int
		take, full bool
	}{{400, true, false}, {599, true, false}, {5000, true, true}, {40, false, true}} {
		if got := g.Take(wide(c.size), false); got != c.take || g.Full() != c.full {
			t.Errorf("packet %d: taken %v, full %v", i, got, g.Full())
		}
	}
	g = Gathering{Limit: 500, Bytes: 1000}
	if !g.Take(wide(5000), false) || !g.Full() {
		t.Error("a packet above the bound is not taken by itself")
	}
	g = Gathering{Limit: 500}
	if !g.Take(wide(5000), false) || !g.Take(wide(5000), false) {
		t.Error("without a bound the bytes count")
	}
}

func TestPartsAndIncarnationsBeginABatch(t *testing.T) {
	t.Parallel()
	part := []*wal.Transaction{partOf(7, 100, 1, false)}
	g := Gathering{Limit: 500}
	if g.Full() || !g.Take(packet(1), true) {
		t.Error("the first packet opens an incarnation, and is not taken")
	}
	if g.Take(packet(1), true) || g.Take(part, false) || !g.Take(packet(1), false) {
		t.Error("a packet that begins a batch is taken into another one, or an ordinary one is not")
	}
	g = Gathering{Limit: 500}
	if !g.Take(part, false) || !g.Full() || g.Take(packet(1), false) {
		t.Error("a part is not alone")
	}
	g = Gathering{}
	if !g.Take(packet(1), false) || g.Take(packet(1), false) {
		t.Error("the zero value takes one packet")
	}
}
