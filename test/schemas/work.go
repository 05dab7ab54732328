package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

// act is one kind of write to row n of every table.
type act struct {
	kind string // insert, update, delete, rekey
	n, v int    // row and variant; for rekey, v is the number of the new row
}

// perform writes to every table in one transaction for each act: parents first, deletes children first.
// Tables without a key take part only in rows that no other region touches.
func (s *site) perform(ctx context.Context, g *harness.Region, acts ...act) error {
	conn, err := g.Cluster.Connect(ctx, g.Database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "set role owner"); err != nil {
		return err
	}
	for _, a := range acts {
		if err := s.one(ctx, conn, a); err != nil {
			return fmt.Errorf("%s row %d in region %s: %w", a.kind, a.n, g.Name, err)
		}
	}
	return nil
}

func (s *site) one(ctx context.Context, conn *pgx.Conn, a act) error {
	tables := slices.Clone(s.catalog.tables)
	if a.kind == "delete" {
		slices.Reverse(tables)
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	batch, path := &pgx.Batch{}, ""
	for _, t := range tables {
		if len(t.key) == 0 && (slices.Contains(s.keyless, t) || slices.Contains(contested, a.n) || slices.Contains(early, a.n)) {
			continue
		}
		if sql := s.catalog.statement(t, a); sql != "" {
			if t.schema != path {
				path = t.schema
				batch.Queue(t.path())
			}
			batch.Queue(sql)
		}
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return errors.Join(err, tx.Rollback(ctx))
	}
	return tx.Commit(ctx)
}

// seeded is above the keys of the rows that a schema brings along.
const seeded = 100

func (c *catalog) statement(t *table, a act) string {
	n := seeded + a.n
	switch a.kind {
	case "insert":
		return c.insert(t, n, a.v)
	case "update":
		return c.update(t, n, a.v)
	case "delete":
		return c.remove(t, n)
	case "rekey":
		return c.rekey(t, n, seeded+a.v)
	}
	return ""
}

// contested are the rows that both regions write without knowing of each other.
var contested = []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 21, 31, 32}

// early are the rows that one region has before the start. Tables without a key are not copied, and have none.
var early = []int{40, 41, 42}

// before writes what is there before setup: rows of one region, rows that are equal, and row 9, which differs.
func (s *site) before(ctx context.Context) error {
	a := []act{{"insert", 40, 0}, {"insert", 41, 0}, {"insert", 9, 1}}
	b := []act{{"insert", 40, 0}, {"insert", 42, 0}, {"insert", 9, 2}}
	for n := 1; n <= 8; n++ {
		if n <= 6 {
			a = append(a, act{"insert", n, 0})
		} else {
			b = append(b, act{"insert", n, 0})
		}
	}
	return errors.Join(s.perform(ctx, s.pair.A, a...), s.perform(ctx, s.pair.B, b...))
}

// linked writes rows that cross one after the other: no conflicts.
func (s *site) linked(ctx context.Context) error {
	for _, step := range []struct {
		region *harness.Region
		acts   []act
	}{
		{s.pair.A, []act{{"insert", 11, 0}, {"insert", 12, 0}, {"update", 42, 1}}},
		{s.pair.B, []act{{"insert", 13, 0}, {"insert", 14, 0}, {"update", 11, 1}, {"update", 41, 3}, {"delete", 12, 0}}},
		{s.pair.A, []act{{"update", 13, 2}, {"delete", 14, 0}, {"rekey", 13, 1013}, {"update", 11, 4}, {"insert", 12, 5}}},
	} {
		if err := s.perform(ctx, step.region, step.acts...); err != nil {
			return err
		}
		if err := s.inStep(ctx); err != nil {
			return err
		}
	}
	return nil
}

// cut writes the same rows in both regions while they do not hear of each other: every kind of conflict
// for every table. Each region writes a row in all tables or in none, so foreign keys hold whoever wins.
func (s *site) cut(ctx context.Context) error {
	for _, l := range s.pair.NatsLinks() {
		l.Cut()
	}
	for _, step := range []struct {
		region *harness.Region
		acts   []act
	}{
		{s.pair.A, []act{{"insert", 21, 1}, {"insert", 22, 0}, {"update", 1, 1}, {"update", 2, 1}}},
		{s.pair.B, []act{{"insert", 21, 2}, {"insert", 23, 0}, {"update", 1, 2}, {"delete", 2, 0}, {"delete", 3, 0}}},
		{s.pair.A, []act{{"update", 3, 1}, {"delete", 4, 0}, {"delete", 5, 0}, {"insert", 5, 5}, {"delete", 6, 0}}},
		{s.pair.B, []act{{"delete", 4, 0}, {"update", 5, 2}, {"delete", 6, 0}, {"insert", 6, 6}, {"update", 7, 2}, {"update", 7, 3}}},
		{s.pair.A, []act{{"update", 7, 4}, {"update", 8, 5}, {"rekey", 9, 1009}}},
		{s.pair.B, []act{{"update", 9, 3}, {"update", 8, 6}}},
	} {
		if err := s.perform(ctx, step.region, step.acts...); err != nil {
			return err
		}
	}
	s.pair.HealAll()
	return s.inStep(ctx)
}

// atOnce writes the same rows in both regions at the same time, with the link up.
func (s *site) atOnce(ctx context.Context) error {
	if err := s.perform(ctx, s.pair.A, act{"insert", 31, 0}, act{"insert", 32, 0}); err != nil {
		return err
	}
	if err := s.inStep(ctx); err != nil {
		return err
	}
	done := make(chan error, 2)
	for i, g := range s.pair.Regions() {
		go func() {
			var acts []act
			for k := range 6 {
				acts = append(acts, act{"update", 31, 1 + 2*k + i}, act{"update", 32, 1 + 2*k + i}, act{"insert", 50 + 2*k + i, 0})
			}
			done <- s.perform(ctx, g, acts...)
		}()
	}
	return errors.Join(<-done, <-done, s.inStep(ctx))
}
