package sim

import (
	"errors"

	"github.com/pgwaltz/pgwaltz/decoder"
	"github.com/pgwaltz/pgwaltz/wal"
)

// errCatalog is a look-up in the server that fails: a session that breaks, a time-out.
var errCatalog = errors.New("the catalog cannot be read")

// failed is what becomes of a pipe whose look-up failed: it begins again.
func (s *sidecar) failed() {
	s.w.Stats.Lookups++
	s.reopen()
	panic(stop{})
}

// reader turns the WAL of a database into what the decoder gives out, as a session of the
// slot does.
type reader struct {
	d         *database
	dec       *decoder.Decoder
	described map[int]bool
	// again reports whether a relation is described once more, as servers do now and then.
	again func() bool
	buf   []byte
}

// live readers are those of the product, whose look-ups may fail.
func newReader(d *database, live bool, again func() bool) *reader {
	return &reader{d: d, described: map[int]bool{}, again: again, dec: decoder.New(decoder.Config{
		MaxPart: d.w.cfg.MaxPart, Marker: []byte("token"),
		Key: func(rel *wal.Relation) error {
			if d.w.cfg.Catalog && live && d.w.chance(20) {
				return errCatalog
			}
			rel.PrimaryKey = []int{colKey}
			rel.Columns[colKey].Form = d.tables[tableOf(rel.Ref())].rel.Columns[colKey].Form
			return nil
		},
	})}
}

// read feeds the messages of one transaction and hands on what comes out.
func (r *reader) read(tx *walTx, take func(*wal.Transaction)) {
	w, d := r.d.w, r.d
	feed := func(b []byte) {
		r.buf = b[:0]
		out, err := r.dec.Feed(tx.commit, b)
		if errors.Is(err, errCatalog) {
			d.r.side.failed()
		}
		w.must(err)
		if out != nil {
			take(out)
		}
	}
	feed(beginMsg(r.buf[:0], tx))
	if tx.applied && w.cfg.Break != NoEchoFilter {
		if w.cfg.Marker {
			feed(markerMsg(r.buf[:0], tx.commit, "token"))
		} else {
			feed(originMsg(r.buf[:0], "pgwaltz_peer"))
		}
	}
	for i := range tx.changes {
		c := &tx.changes[i]
		if !r.described[c.table] || r.again() {
			r.described[c.table] = true
			feed(relationMsg(r.buf[:0], d.tables[c.table]))
		}
		feed(changeMsg(r.buf[:0], d.tables[c.table], c))
	}
	if w.cfg.Break != LossyPushback || tx.life == d.r.side.life { // else it is gone with the process
		for _, m := range tx.tell() {
			feed(messageMsg(r.buf[:0], tx.commit, decoder.TellPrefix, m))
		}
	}
	feed(commitMsg(r.buf[:0], tx))
}
