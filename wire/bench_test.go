package wire

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

// One operation is one transaction with one change of a ten-column row, in packets of 256 KiB.
func benchTransactions() []*wal.Transaction {
	rel := users()
	txs := make([]*wal.Transaction, 1000)
	for i := range txs {
		txs[i] = userUpdate(rel, wal.XID(1000+i))
	}
	return txs
}

func benchmarkEncode(b *testing.B, compress bool) {
	cfg := sampleConfig()
	cfg.Compress = compress
	e := NewEncoder(cfg, Position{Incarnation: 1})
	txs := benchTransactions()
	var raw int64
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := e.Add(txs[i%len(txs)]); err != nil {
			b.Fatal(err)
		}
		if e.Size() >= 256<<10 {
			raw += int64(e.Size())
			e.Cut(Data, 0, 0, sampleTime)
		}
	}
	b.ReportMetric(float64(raw)/float64(b.N), "raw-B/op")
}

func BenchmarkEncodeRow(b *testing.B)   { benchmarkEncode(b, false) }
func BenchmarkEncodeRowS2(b *testing.B) { benchmarkEncode(b, true) }

func benchmarkParse(b *testing.B, compress bool) {
	cfg := sampleConfig()
	cfg.Compress = compress
	e := NewEncoder(cfg, Position{Incarnation: 1})
	rows := 0
	for _, tx := range benchTransactions() {
		mustAdd(b, e, tx)
		rows++
		if e.Size() >= 256<<10 {
			break
		}
	}
	data := e.Cut(Data, 0, 0, sampleTime)[0].Data
	a := NewAssembler(0, new(RelationCache))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%rows != 0 {
			continue
		}
		raw, err := Parse(data)
		if err != nil {
			b.Fatal(err)
		}
		if p, err := a.Add(raw); err != nil || len(p.Transactions) != rows {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(data))/float64(rows), "wire-B/op")
}

func BenchmarkParseRow(b *testing.B)   { benchmarkParse(b, false) }
func BenchmarkParseRowS2(b *testing.B) { benchmarkParse(b, true) }

// A frame of one small transaction: what an idle link pays.
func BenchmarkSmallFrame(b *testing.B) {
	e := NewEncoder(sampleConfig(), Position{Incarnation: 1})
	tx := userUpdate(users(), 1)
	a := NewAssembler(0, new(RelationCache))
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Add(tx); err != nil {
			b.Fatal(err)
		}
		raw, err := Parse(e.Cut(Data, 0, 0, 0)[0].Data)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := a.Add(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// A value of 100 MB through fragments and back; B/op over 100 MB tells how often it is copied.
func BenchmarkGiantValue(b *testing.B) {
	tx := bigTransaction(users(), 100_000_000)
	b.ReportAllocs()
	b.SetBytes(100_000_000)
	for b.Loop() {
		e := NewEncoder(sampleConfig(), Position{Incarnation: 1})
		if err := e.Add(tx); err != nil {
			b.Fatal(err)
		}
		a := NewAssembler(0, nil)
		for f := range e.CutSeq(Data, 0, 9, 0) {
			raw, err := Parse(f.Data)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := a.Add(raw); err != nil {
				b.Fatal(err)
			}
		}
	}
}
