package pgsync

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/source/poll"
	"github.com/pgwaltz/pgwaltz/wal"
)

// settlePage is how many parked rows are looked at together.
const settlePage = 500

// contest is a row of the source that waits, and the rows of the destination that have a unique value of it.
type contest struct {
	row    wal.Tuple
	old    wal.Tuple // of its key in the destination; nil for none
	rivals []poll.Rival
}

// settle decides between rows that wait for a unique value and the destination's own rows that have it, by the rule of all conflicts: the
// higher version, then the newer time; under one stamp the source's row. Rows that the source has as well are left alone: their own changes come.
// What is decided stands in the audit log before it is done, both rows whole. Doing it again is harmless.
func (p *pass) settle(ctx context.Context) error {
	if !p.sink.waits() {
		return nil
	}
	for _, t := range p.tables {
		if t.remade || t.Cols.Stampless() {
			continue
		}
		for after := int64(0); ; {
			// Rows that met a row with a unique value of theirs.
			ids, err := parked.Page(ctx, p.destination, parked.Queue{Origin: originOf(p.job.Name), Relation: t.Rel.Ref(), State: "23505"}, after, settlePage, false)
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				break
			}
			after = ids[len(ids)-1]
			if err := p.settlePage(ctx, t, ids); err != nil {
				return fmt.Errorf("settle rows of %s that clash: %w", t.Rel, err)
			}
		}
	}
	return nil
}

func (p *pass) settlePage(ctx context.Context, t *table, ids []int64) error {
	list, err := p.contests(ctx, t, ids)
	if err != nil || len(list) == 0 {
		return err
	}
	now, err := poll.Now(ctx, p.source)
	if err != nil {
		return err
	}
	var won, lost []wal.Tuple
	var records []audit.Record
	for _, c := range list {
		of, wins, err := p.judge(t, c)
		if err != nil {
			return err
		}
		if wins {
			if wins, err = p.mayGo(ctx, t, c); err != nil {
				return err
			}
			if !wins {
				continue // it waits on, as it is recorded
			}
			won = append(won, c.row)
			for _, r := range c.rivals {
				lost = append(lost, r.Row)
			}
		}
		records = append(records, of...)
	}
	rows, err := p.destination.Query(ctx, audit.InsertSQL, audit.InsertArgs(records)...)
	if err == nil {
		var tally audit.Tally
		if err = tally.Read(rows); err == nil {
			for kind, n := range tally.ByType {
				p.sink.tally.ByType[kind] += n
			}
		}
	}
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	deletes, err := t.Deletes(ctx, p.destination, lost, now.Time())
	if err != nil {
		return err
	}
	changes, err := t.Changes(ctx, p.destination, won, now.Time())
	if err != nil {
		return err
	}
	t.replaced += int64(len(deletes))
	return p.sink.apply(ctx, append(deletes, changes...), now.Time())
}

// contests reads what waits as the source has it now, and what stands against it.
func (p *pass) contests(ctx context.Context, t *table, ids []int64) ([]contest, error) {
	changes, err := parked.Read(ctx, p.destination, ids)
	if err != nil {
		return nil, err
	}
	var keys [][]string
	for _, c := range changes {
		if key := keyIn(t, &c.Waiting); key != nil {
			keys = append(keys, key)
		}
	}
	found, err := t.Rows(ctx, p.source, keys)
	if err != nil {
		return nil, err
	}
	rows := slices.DeleteFunc(found, func(r wal.Tuple) bool { return r == nil })
	rivals, ok, err := t.Rivals(ctx, p.destination, rows)
	if err != nil || !ok || len(rivals) == 0 {
		return nil, err
	}
	own := make([]wal.Tuple, len(rivals))
	for i, r := range rivals {
		own[i] = r.Row
	}
	// Asked behind the destination: a row that the source has only now is there for it.
	there, err := t.Present(ctx, p.source, own)
	if err != nil {
		return nil, err
	}
	keys = keys[:0]
	for _, r := range rows {
		keys = append(keys, t.KeyOf(r))
	}
	old, err := t.RowsThere(ctx, p.destination, keys)
	if err != nil {
		return nil, err
	}
	list := make([]contest, len(rows))
	taken, shared := map[string]bool{}, map[int]bool{}
	for i, r := range rivals {
		c, key := &list[r.Of], fmt.Sprintf("%q", t.KeyOf(r.Row))
		c.row, c.old = rows[r.Of], old[r.Of]
		if slices.ContainsFunc(c.rivals, func(o poll.Rival) bool { return slices.Equal(t.KeyOf(o.Row), t.KeyOf(r.Row)) }) {
			continue // it has two values of the same row
		}
		if there[i] || taken[key] { // of two rows that want one value the second waits for the next run
			shared[r.Of] = true
		}
		taken[key] = true
		c.rivals = append(c.rivals, r)
	}
	out := list[:0]
	for i, c := range list {
		if len(c.rivals) > 0 && !shared[i] {
			out = append(out, c)
		}
	}
	return out, nil
}

// keyIn is the primary key of a row that waits; nil where it cannot be told.
func keyIn(t *table, w *conflict.Waiting) (key []string) {
	for _, k := range t.Rel.PrimaryKey {
		at := w.Relation.Column(t.Rel.Columns[k].Name)
		if at < 0 || at >= len(w.Image) || w.Image[at].Kind != wal.Text {
			return nil
		}
		key = append(key, string(w.Image[at].Bytes))
	}
	return key
}

// judge compares a row with each of its rivals, and returns a record of each pair. It wins against all of them or against none.
func (p *pass) judge(t *table, c contest) (records []audit.Record, wins bool, err error) {
	side := func(row wal.Tuple) (conflict.Side, error) {
		st, err := conflict.StampOf(t.Cols, t.Rel, row, wal.MinMicros)
		content, _ := conflict.Content(t.Rel, row)
		return conflict.Side{Known: true, Alive: true, Stamp: st, Content: content}, err
	}
	mine, err := side(c.row)
	if err != nil {
		return nil, false, err
	}
	if c.old != nil {
		if old, err := side(c.old); err != nil || (conflict.Policy{}).Compare(old.Stamp, mine.Stamp) > 0 {
			return nil, false, err // the destination's own row of this key stays anyway
		}
	}
	wins = true
	kind := conflict.UpdateExists
	if len(c.rivals) > 1 {
		kind = conflict.MultipleUniqueConflicts
	}
	imager := audit.NewImager(nil)
	for _, rival := range c.rivals {
		theirs, err := side(rival.Row)
		if err != nil {
			return nil, false, err
		}
		reason := "content"
		switch {
		case mine.Stamp.Version != theirs.Stamp.Version:
			reason = "version"
		case mine.Stamp.UpdatedAt != theirs.Stamp.UpdatedAt:
			reason = "updated_at"
		}
		wins = wins && conflict.Policy{}.Compare(mine.Stamp, theirs.Stamp) >= 0
		key, err := json.Marshal([][]string{t.KeyOf(c.row), t.KeyOf(rival.Row)})
		if err != nil {
			return nil, false, err
		}
		records = append(records, audit.Record{
			EventID: conflict.EventID(t.Rel.Ref(), string(key), mine, theirs), Region: hereName, Origin: originOf(p.job.Name), Relation: t.Rel.Ref(),
			Key: imager.Key(nil, t.Rel, c.row, t.Rel.PrimaryKey), Type: string(kind), Reason: reason,
			LocalStamp: stampText(theirs.Stamp), RemoteStamp: stampText(mine.Stamp), LocalRow: rival.Whole, RemoteRow: imager.Row(nil, t.Rel, c.row),
		})
	}
	for i := range records {
		r := &records[i]
		if r.Verdict, r.Winner, r.Loser = conflict.Keep.String(), hereName, r.Origin; wins {
			r.Verdict, r.Winner, r.Loser = conflict.Apply.String(), r.Origin, hereName
		}
	}
	return records, wins, nil
}

// stampText prints a stamp as the applier does.
func stampText(s wal.Stamp) string {
	version := strconv.FormatInt(s.Version, 10)
	if s.Version == wal.NullVersion {
		version = "null"
	}
	return fmt.Sprintf("g%d v%s %s", s.Generation, version, s.UpdatedAt)
}

// mayGo reports whether the rivals of a row may be deleted: the role may, and nothing in the destination references them. Else it says why not.
func (p *pass) mayGo(ctx context.Context, t *table, c contest) (bool, error) {
	if t.mayDelete == nil {
		d, err := pg.LoadTable(ctx, p.destination, t.Rel.Schema, t.Rel.Name)
		if err != nil {
			return false, err
		}
		missing, err := pg.TablePrivileges(ctx, p.destination, p.role.Name, d.OID, []string{"DELETE"})
		if err != nil {
			return false, err
		}
		may := len(missing) == 0
		t.mayDelete = &may
		if !may {
			p.log.Warn("rows of the destination that lose a unique value stay", "table", t.Rel.String(), "reason", fmt.Sprintf("role %q may not delete them", p.role.Name),
				"try", fmt.Sprintf("in the destination: grant delete on table %s to %s", d.SQL(), pg.Quote(p.role.Name)))
		}
	}
	if !*t.mayDelete {
		return false, nil
	}
	var rows []wal.Tuple
	for _, r := range c.rivals {
		rows = append(rows, r.Row)
	}
	by, err := t.Referenced(ctx, p.destination, rows)
	if err != nil {
		return false, err
	}
	for _, name := range by {
		if name != "" {
			p.log.Warn("a row of the destination that loses a unique value stays", "table", t.Rel.String(), "reason", "rows of "+name+" reference it")
			return false, nil
		}
	}
	return true, nil
}
