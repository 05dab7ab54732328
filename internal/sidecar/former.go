package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/conflict/parked"
	"github.com/pgwaltz/pgwaltz/source/names"
	"github.com/pgwaltz/pgwaltz/wal"
)

// A table that is renamed twice may have had the name between for a moment only, and never in the other region. Its
// origin reads that name in the WAL, beside the number of the table, and notes it (meetName). The other region, which has
// changes by that name set aside, asks the origin what the table is called now. So it does for tables whose columns are called otherwise there (PW006), or may
// have been dropped there as here (42703), where no newer description of them has come since.

// verbNames asks a region for the present names of tables.
const verbNames = "names"

const (
	formerMost  = 200 // names in one question
	formerPause = 5 * time.Second
	formerWait  = 2 * time.Second
)

// namesBody is the body of a question, without Is, and of its answer: the tables that were called Was are called Is now. Tables are asked
// for by their number as well, and Names are what those that are there are called now. Of are tables whose columns are asked for, and Columns what these are called
// now, by their numbers, in the same order; nil for a table that is gone.
type namesBody struct {
	Was    []wal.RelationName `json:"was"`
	Is     []wal.RelationName `json:"is,omitempty"`
	Tables []uint32           `json:"tables,omitempty"`
	Names  []wal.RelationName `json:"names,omitempty"`

	Of      []uint32           `json:"of,omitempty"`
	Columns []map[int16]string `json:"columns,omitempty"`
}

// metNames are names that the decoder has met, by table. It belongs to the goroutine of the decoder.
type metNames struct{ of map[uint32]wal.RelationName }

// maxMet bounds it; what is forgotten is looked at again.
const maxMet = 20000

// formerNames is what the origins say of names by which changes wait here. It belongs to the goroutine of upkeep.
type formerNames struct {
	told map[string]namesBody // by origin
	due  time.Time
}

// meetName notes by which name the WAL has a table, before its changes are published by it; named says that the table has this name now,
// which the looks at all names note.
func (s *Sidecar) meetName(ctx context.Context, rel *wal.Relation, named bool) error {
	if !named {
		if err := s.catalog.do(ctx, func(ctx context.Context, c *pgx.Conn) error { return names.Meet(ctx, c, rel.Ref(), rel.OID) }); err != nil {
			return err
		}
	}
	if s.met.of == nil || len(s.met.of) >= maxMet {
		s.met.of = map[uint32]wal.RelationName{}
	}
	s.met.of[rel.OID] = rel.Ref()
	return nil
}

// sayFormer answers a peer that has changes by names which none of its tables has.
func (s *Sidecar) sayFormer(ctx context.Context, asker string, data []byte) ([]byte, error) {
	var req, reply namesBody
	if err := json.Unmarshal(data, &req); err != nil || len(req.Was) > formerMost || len(req.Tables) > formerMost || len(req.Of) > formerMost {
		return nil, errors.New("the request cannot be read")
	}
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		list, err := names.Former(ctx, c)
		is := map[wal.RelationName]wal.RelationName{}
		for _, r := range list {
			is[r.Was] = r.Is
		}
		for _, was := range req.Was {
			if now, ok := is[was]; ok && s.cfg.Selected(now.Schema, now.Name) {
				reply.Was, reply.Is = append(reply.Was, was), append(reply.Is, now)
			}
		}
		if err != nil || len(req.Tables)+len(req.Of) == 0 {
			return err
		}
		called, err := names.Called(ctx, c, append(slices.Clone(req.Tables), req.Of...))
		if err != nil {
			return err
		}
		selected := func(table uint32) bool {
			now, there := called[table]
			return there && s.cfg.Selected(now.Schema, now.Name)
		}
		for _, table := range req.Tables {
			if selected(table) {
				reply.Tables, reply.Names = append(reply.Tables, table), append(reply.Names, called[table])
			}
		}
		if len(req.Of) == 0 {
			return nil
		}
		columns, err := names.CalledColumns(ctx, c, req.Of)
		for _, table := range req.Of {
			reply.Of = append(reply.Of, table)
			if selected(table) {
				reply.Columns = append(reply.Columns, columns[table])
			} else {
				reply.Columns = append(reply.Columns, nil)
			}
		}
		return err
	})
	if err != nil {
		s.log.Debug("names were asked for", "peer", asker, "reason", publicMessage(err))
		return nil, errors.New("the names cannot be read now")
	}
	return json.Marshal(reply)
}

// askFormer asks the origins of changes that wait for a table of a name that none here has. An origin that cannot be
// asked, or does not know such questions, is asked again later.
func (s *Sidecar) askFormer(ctx context.Context) {
	if time.Now().Before(s.former.due) {
		return
	}
	// Origins that let an answer wait take their part of the time too: upkeep stands meanwhile.
	defer func(began time.Time) { s.former.due = time.Now().Add(max(formerPause, 19*time.Since(began))) }(time.Now())
	s.former.told = nil
	var waiting []parked.Nameless
	var swapped []parked.Awaited
	err := s.db.do(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		if waiting, err = parked.Homeless(ctx, c, s.cfg.Region, formerMost); err != nil {
			return err
		}
		swapped, err = parked.InState(ctx, c, s.cfg.Region, rejoined, formerMost)
		return err
	})
	if err != nil {
		s.log.Debug("look for changes without a table", "reason", publicMessage(err))
		return
	}
	ask := map[string]namesBody{}
	for _, w := range waiting {
		q := ask[w.Origin]
		q.Was = append(q.Was, w.Name)
		ask[w.Origin] = q
	}
	tables := map[originTable]bool{}
	for _, of := range []map[originTable]bool{s.moved.asks, s.apart.asks} {
		for t := range of {
			if q := ask[t.origin]; !tables[t] && len(q.Tables) < formerMost {
				tables[t], q.Tables = true, append(q.Tables, t.table)
				ask[t.origin] = q
			}
		}
	}
	for _, w := range swapped {
		for _, t := range s.suspectsOf(w.Origin).Theirs(w.Table) {
			if q := ask[w.Origin]; len(q.Of) < formerMost {
				q.Of = append(q.Of, t)
				ask[w.Origin] = q
			}
		}
	}
	for origin := range s.in {
		for _, t := range s.suspectsOf(origin).Lacking() {
			if q := ask[origin]; len(q.Of) < formerMost && !slices.Contains(q.Of, t) {
				q.Of = append(q.Of, t)
				ask[origin] = q
			}
		}
	}
	told := map[originTable]wal.RelationName{}
	s.moved.told, s.apart.told = told, told
	for origin, q := range ask {
		said, err := s.askNames(ctx, origin, q)
		if err != nil {
			s.log.Debug("ask for names of tables", "origin", origin, "reason", publicMessage(err))
			continue
		}
		if s.former.told == nil {
			s.former.told = map[string]namesBody{}
		}
		s.former.told[origin] = said
		for i, table := range said.Tables {
			told[originTable{origin, table}] = said.Names[i]
		}
		for i, table := range said.Of {
			s.suspectsOf(origin).SayColumns(table, said.Columns[i])
		}
	}
}

// askNames asks one origin, and leaves out of the answer what was not asked for, or is not selected here.
func (s *Sidecar) askNames(ctx context.Context, origin string, q namesBody) (out namesBody, err error) {
	if s.in[origin] == nil || !s.reachable(origin) {
		return out, broker.ErrUnreachable
	}
	body, err := json.Marshal(q)
	if err != nil {
		return out, err
	}
	ctx, cancel := context.WithTimeout(ctx, formerWait)
	defer cancel()
	data, err := s.broker.Request(ctx, origin, verbNames, body)
	if err != nil {
		return out, err
	}
	var told namesBody
	if err := json.Unmarshal(data, &told); err != nil {
		return out, errors.New("the answer cannot be read")
	}
	asked := map[wal.RelationName]bool{}
	for _, n := range q.Was {
		asked[n] = true
	}
	for i := range min(len(told.Was), len(told.Is)) {
		if was, is := told.Was[i], told.Is[i]; asked[was] && s.cfg.Selected(is.Schema, is.Name) {
			asked[was] = false
			out.Was, out.Is = append(out.Was, was), append(out.Is, is)
		}
	}
	for i := range min(len(told.Tables), len(told.Names)) {
		if slices.Contains(q.Tables, told.Tables[i]) {
			out.Tables, out.Names = append(out.Tables, told.Tables[i]), append(out.Names, told.Names[i])
		}
	}
	for i := range min(len(told.Of), len(told.Columns)) {
		if told.Columns[i] != nil && slices.Contains(q.Of, told.Of[i]) {
			out.Of, out.Columns = append(out.Of, told.Of[i]), append(out.Columns, told.Columns[i])
		}
	}
	return out, nil
}
