package apply

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/tombstone"
	"github.com/pgwaltz/pgwaltz/sink/apply/batch"
	"github.com/pgwaltz/pgwaltz/sink/apply/statement"
	"github.com/pgwaltz/pgwaltz/wal"
)

// NeedsSelfMerge reports whether an own, published change has something to record here: a
// delete its tombstone, a change in a later generation its entry, a change of a table
// without stamp columns its stamp. All others carry their stamp in the row itself.
//
// A stamp far ahead of the clock is recorded too, so that this region's log says the same as
// its peers'.
func NeedsSelfMerge(p Policy, tx *wal.Transaction, ch *wal.Change) bool {
	if ch.Op == wal.Truncate || ch.Repair || ch.Relation.KeyColumns() == nil {
		return false
	}
	if ch.Op == wal.Delete || ch.Stamp.Generation > 0 {
		return true
	}
	if p.table(ch.Relation.Ref()).Resolve.Skewed(ch.Stamp, tx.CommitTime) {
		return true
	}
	return stampless(p, ch.Relation)
}

// Plain reports whether an own change of a table without stamp columns says nothing but that its
// row was written at its commit time.
func Plain(p Policy, tx *wal.Transaction, ch *wal.Change) bool {
	return stampless(p, ch.Relation) && conflict.Plain(ch, tx.CommitTime) && !p.table(ch.Relation.Ref()).Resolve.Skewed(ch.Stamp, tx.CommitTime)
}

// decideOwn deals with an own change that the tables hold already, or that a later own
// change has superseded. For everything else, a row that a remote change overwrote before this
// one was known, it says what conflict.Resolve has to compare the change with.
func (a *Applier) decideOwn(ctx context.Context, g *batch.Group, t *target, i int, st *known, side conflict.Side, e conflict.Event) (v verdict, done bool, against conflict.Side, err error) {
	r := &g.Runs[i]
	o := conflict.Own{Event: e, Local: side, Told: a.heldHere[r.Tx]}
	if st.row != nil {
		o.Holds = r.Op != wal.Delete && a.holds(t, r, side, e)
		if st.entry != nil && !st.entry.Live {
			o.Tombstone = st.entry.side()
		}
		o.Carried = !t.stampless()
		o.Mine = t.stampless() && (st.entry == nil || st.entry.Plain)
	}
	pol := a.cfg.Policy.table(g.Rel.Ref()).Resolve
	passed, behind, err := a.passedOn(ctx, t, r.Tx)
	if err != nil || passed && !(behind && o.Holds) {
		v = verdict{i: i, side: side, event: e, known: st, moved: passed, behind: behind}
		v.Verdict = decideFormer(pol, r.Op, st.row != nil, behind, e, side)
		return v, true, against, err
	}
	name, key, at := a.ledger(g.Rel), []byte(st.key), tombstone.Place{Commit: r.Tx.CommitLSN, Part: r.Tx.Part}
	later := func() bool {
		return r.Followed || a.cfg.Index.Later(name, key, at) || r.Op != wal.Delete && st.row == nil && a.cfg.Index.Cut(name, at)
	}
	o.Later = later()
	if r.Op == wal.Delete && st.row != nil && !t.schema.plain && !o.Later {
		attached, err := a.cameAttached(ctx, g, t, i, r.Tx.XID)
		if err != nil {
			return v, true, against, err
		}
		if attached {
			return verdict{i: i, Decision: conflict.Decision{Verdict: conflict.Same}, side: side, event: e, known: st}, true, against, nil
		}
	}
	step, against := conflict.DecideOwn(pol, o)
	if step == conflict.OwnWait {
		if o.Stamped, err = a.isStamped(ctx, t, st); err != nil {
			return v, true, against, err
		}
		// Stamped in between: ask again what is known.
		o.Later = later()
		step, against = conflict.DecideOwn(pol, o)
	}
	if step == conflict.OwnWait && o.Stamped { // it was told of, and waits for the merging of later ones
		return verdict{i: i, Decision: conflict.Decision{Verdict: conflict.Park, Reason: conflict.Unsure}, side: side, event: e, known: st}, true, against, nil
	}
	if step == conflict.OwnWait {
		return v, true, against, errNotStamped
	}
	if step == conflict.OwnResolve && r.Op != wal.Delete && st.row != nil && !o.Holds {
		if o.Holds, err = a.converted(ctx, g, t, i, st); err != nil {
			return v, true, against, err
		}
		step, against = conflict.DecideOwn(pol, o)
	}
	v = verdict{i: i, Decision: conflict.Decision{Verdict: conflict.Same}, side: side, event: e, known: st, moved: passed, behind: behind}
	if step == conflict.OwnSkip {
		v.Verdict = conflict.Keep // the later change brings its own entry
	}
	return v, step != conflict.OwnResolve, against, nil
}

// cameAttached reports whether the row came with a partition that was attached by the transaction
// that deleted its key, or later. Of rows that are moved so, only the deletes are in the WAL.
func (a *Applier) cameAttached(ctx context.Context, g *batch.Group, t *target, i int, deleted wal.XID) (is bool, err error) {
	var writer, part string
	err = a.query(ctx, statement.Lock(a.keyShape(g, t), []string{"xmin", "tableoid"}), a.keyArrays(g, t, []int{i}, nil), []int16{1, 0, 0}, func(v [][]byte) {
		writer, part = string(v[1]), string(v[2])
	})
	if err == nil && writer != "" {
		err = a.conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_inherits h where h.inhrelid = $1::text::oid
  and pg_catalog.age(h.xmin) between 0 and pg_catalog.age($2::text::pg_catalog.xid) and pg_catalog.age($3::text::pg_catalog.xid) >= pg_catalog.age(h.xmin))`,
			part, strconv.FormatUint(uint64(deleted), 10), writer).Scan(&is)
	}
	if err != nil {
		return false, fmt.Errorf("ask where a row of %s came from: %w", g.Rel, err)
	}
	return is, nil
}

// holds reports whether the local row is the one that the change wrote. Equal stamps are not
// enough: a row of another region may carry the same.
func (a *Applier) holds(t *target, r *batch.Run, side conflict.Side, e conflict.Event) bool {
	if !bytes.Equal(side.Content, e.Content) {
		return false
	}
	return t.stampless() || (side.Stamp.Version == r.Stamp.Version && side.Stamp.UpdatedAt == r.Stamp.UpdatedAt)
}

// converted reports whether the row is the one that the own run wrote, but for columns that were altered since: what ALTER TABLE
// makes of the rows that are there is in no WAL, and is not to be undone. ALTER TABLE may have done no more than set NOT NULL, and the row
// may be another region's, put there before the own change was known. So it counts only where the row was written by the run's transaction, or by one
// that has written its table or columns of that into the catalog, as whoever rewrites a table does; and its stamp as converted only where the stamp's column has
// another type now. An applier that truncates has written the table into the catalog too, but the entry of its row as well.
func (a *Applier) converted(ctx context.Context, g *batch.Group, t *target, i int, st *known) (bool, error) {
	r, row := &g.Runs[i], st.row
	image, err := a.textImage(ctx, g, t, i)
	if err != nil {
		return false, err
	}
	differ := conflict.Differing(g.Rel, batch.Fill(image, row), row)
	if len(differ) == 0 {
		return false, nil // the stamp does
	}
	var names []string
	var types, mods []int64 // of stamp columns; 0 of others
	for _, c := range differ {
		typ, mod := int64(0), int64(0)
		if c == t.cols.Version || c == t.cols.UpdatedAt {
			typ, mod = int64(g.Rel.Columns[c].OID), int64(g.Rel.Columns[c].TypeMod)
		}
		names, types, mods = append(names, g.Rel.Columns[c].Name), append(types, typ), append(mods, mod)
	}
	var altered bool
	err = a.conn.QueryRow(ctx, `with recursive tables as (
  select $1::int8::oid as oid union select h.inhrelid from tables join pg_catalog.pg_inherits h on h.inhparent = tables.oid)
select (select pg_catalog.count(*) = pg_catalog.cardinality($2::text[]) from pg_catalog.pg_attribute a
  join unnest($2::text[], $4::int8[], $5::int8[]) as u(name, type, mod) on u.name = a.attname
  where a.attrelid = $1::int8::oid and (u.type = 0 or a.atttypid::int8 <> u.type or a.atttypmod <> u.mod)
    and pg_catalog.age(a.xmin) between 0 and pg_catalog.age($3::text::pg_catalog.xid)
    and not exists (select from pg_catalog.pg_attribute s where s.attrelid = a.attrelid and s.attnum < 0 and s.xmin = a.xmin)) -- as it was made with the table
  and ($6::text = $3::text
    or exists (select from pg_catalog.pg_attribute a join tables on a.attrelid = tables.oid where a.xmin = $6::text::pg_catalog.xid)
    or exists (select from pg_catalog.pg_class c join tables on c.oid = tables.oid where c.xmin = $6::text::pg_catalog.xid))`,
		int64(t.schema.oid), names, strconv.FormatUint(uint64(r.Tx.XID), 10), types, mods, strconv.FormatUint(uint64(st.writer), 10)).Scan(&altered)
	if err == nil && altered {
		var other bool
		err = a.conn.QueryRow(ctx, tombstone.WriterSQL, tombstone.RelationText(a.ledger(g.Rel)), st.key, strconv.FormatUint(uint64(st.writer), 10)).Scan(&other)
		altered = !other
	}
	if err != nil {
		return false, fmt.Errorf("ask whether %s was altered: %w", g.Rel, err)
	}
	return altered, nil
}

// OwnItem is an item of a key that is kept without an entry of its own.
type OwnItem struct {
	tombstone.Ref
	conflict.Item
	plain bool          // it, and those that were left out for it, have times of their own
	rel   *wal.Relation // of the change
}

// OwnItems are the items of all own changes of some transactions: also of those that a later one
// of the same batch has superseded, because the WAL may be decoded again from in between. Items
// that say nothing new between two others of their key are left out.
func OwnItems(p Policy, x *tombstone.Index, txs []*wal.Transaction) []OwnItem {
	var out []OwnItem
	last := map[tombstone.Ref]int{}   // newest item of a key
	before := map[tombstone.Ref]int{} // and the one before it
	for _, tx := range txs {
		for i := range tx.Changes {
			ch := &tx.Changes[i]
			if !NeedsSelfMerge(p, tx, ch) {
				continue
			}
			row := ownItem(p, x, tx, ch)
			if Plain(p, tx, ch) && !x.May(row.Relation, []byte(row.Key)) {
				continue // nothing is stamped from it
			}
			n, ok := last[row.Ref]
			if !ok {
				last[row.Ref] = len(out)
				out = append(out, row)
				continue
			}
			old := &out[n]
			if old.LSN == row.LSN {
				old.Item, old.plain = old.Join(row.Item), old.plain && row.plain
				continue
			}
			plain := row.plain
			row.plain = row.plain && old.plain // all of them are
			if plain && old.Next == 0 && row.Next == 0 {
				*old = row // it gets its stamp from nothing
				continue
			}
			if b, ok := before[row.Ref]; ok && plain && old.Repeats(out[b].Item) && old.Next == row.Next {
				*old = row
				continue
			}
			before[row.Ref], last[row.Ref] = n, len(out)
			out = append(out, row)
		}
	}
	return out
}

func ownItem(p Policy, x *tombstone.Index, tx *wal.Transaction, ch *wal.Change) OwnItem {
	o := OwnItem{Ref: tombstone.Ref{Relation: x.Own(ch.Relation), Key: string(ch.AppendKey(nil))}, plain: plain(p, tx, ch), rel: ch.Relation}
	o.Item = conflict.Item{LSN: tx.CommitLSN, Next: conflict.NextGeneration(ch.Stamp, ch.Op != wal.Delete), Live: ch.Op != wal.Delete}
	if stampless(p, ch.Relation) {
		o.At = ch.Stamp.UpdatedAt
	}
	return o
}

func (a *Applier) ownItems(txs []keyedTx) []OwnItem {
	plain := make([]*wal.Transaction, len(txs))
	for i, k := range txs {
		plain[i] = k.tx
	}
	return OwnItems(a.cfg.Policy, a.cfg.Index, plain)
}

// alsoNoted adds what other ledgers have of items, which were begun as copies of those that the items are of. It is asked for when the items are written, behind all
// that the transaction has seen of names.
func (a *Applier) alsoNoted(items []OwnItem) []OwnItem {
	for _, it := range items {
		if it.rel == nil {
			continue
		}
		for _, ledger := range a.cfg.Index.Also(it.rel) {
			it.Relation = ledger
			items = append(items, it)
		}
	}
	return items
}

func (a *Applier) stampless(rel *wal.Relation) bool { return stampless(a.cfg.Policy, rel) }

func stampless(p Policy, rel *wal.Relation) bool {
	version, updatedAt := p.stampColumns(rel.Ref())
	return conflict.ColumnsOf(rel, version, updatedAt).Stampless()
}

// plain reports whether an own change would get its stamp also from an older item of the same
// generation: its time is its own, not one above another.
func plain(p Policy, tx *wal.Transaction, ch *wal.Change) bool {
	return ch.Op != wal.Delete && (!stampless(p, ch.Relation) || ch.Stamp.UpdatedAt == tx.CommitTime)
}
