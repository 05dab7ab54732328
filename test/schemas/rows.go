package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Row n of a table refers to row n of its parents, and its fixed columns are made of n. Where a
// check constraint refuses what a column got, the literals of the constraint are tried, and what is
// known to pass is used from then on.

// value is the value of a column of a table for row n: that of the parent's column where the column is
// part of a foreign key.
func (c *catalog) value(t *table, col *column, n, v int) string {
	return c.valueBelow(t, col, n, v, map[*table]bool{})
}

func (c *catalog) valueBelow(t *table, col *column, n, v int, seen map[*table]bool) string {
	seen[t] = true
	for _, r := range t.references {
		i := slices.Index(r.columns, col.number)
		if i < 0 {
			continue
		}
		parent := c.byName[r.parent]
		if r.deferred && !col.notNull {
			return null
		}
		if up := parent.column(r.parents[i]); parent == t || !seen[parent] {
			if parent == t {
				return up.value(n, 0)
			}
			return c.valueBelow(parent, up, n, 0, seen)
		}
	}
	return col.value(n, v)
}

// insert writes row n in variant v.
func (c *catalog) insert(t *table, n, v int) string {
	var names, values []string
	overriding := ""
	for _, col := range t.columns {
		if col.skip {
			continue
		}
		if col.always {
			overriding = "overriding system value "
		}
		names = append(names, pgx.Identifier{col.name}.Sanitize())
		values = append(values, c.value(t, col, n, v))
	}
	return "insert into " + t.sql + " (" + strings.Join(names, ", ") + ") " + overriding + "values (" + strings.Join(values, ", ") + ")"
}

// where finds row n.
func (c *catalog) where(t *table, n int) string {
	numbers := t.key
	if len(numbers) == 0 {
		numbers = []int16{t.tag}
	}
	var parts []string
	for _, number := range numbers {
		col := t.column(number)
		parts = append(parts, pgx.Identifier{col.name}.Sanitize()+" = "+c.value(t, col, n, 0))
	}
	return " where " + strings.Join(parts, " and ")
}

// update gives row n variant v. A table that has only keys is written as it is, which is an update all the same.
func (c *catalog) update(t *table, n, v int) string {
	var sets []string
	for _, col := range t.columns {
		if col.skip || col.always || col.fixed || slices.Contains(t.key, col.number) || t.refers(col.number) {
			continue
		}
		sets = append(sets, pgx.Identifier{col.name}.Sanitize()+" = "+c.value(t, col, n, v))
	}
	if len(sets) == 0 {
		same := pgx.Identifier{t.columns[0].name}.Sanitize()
		sets = append(sets, same+" = "+same)
	}
	return "update " + t.sql + " set " + strings.Join(sets, ", ") + c.where(t, n)
}

// remove deletes row n.
func (c *catalog) remove(t *table, n int) string { return "delete from " + t.sql + c.where(t, n) }

// rekey gives row n the key of row m, where nothing refers to the table and a key column is free;
// "" otherwise.
func (c *catalog) rekey(t *table, n, m int) string {
	if t.referenced || len(t.key) == 0 {
		return ""
	}
	for _, r := range t.references {
		if r.parent == t.sql {
			return "" // it would refer to what it was
		}
	}
	var sets []string
	for _, col := range t.columns {
		if col.fixed && !col.skip && t.refers(col.number) && !slices.Contains(t.key, col.number) {
			return "" // it stays, and is unique: where an update of row n wins, the two would clash
		}
		if col.fixed && !col.skip && !col.always && !t.refers(col.number) {
			sets = append(sets, pgx.Identifier{col.name}.Sanitize()+" = "+c.value(t, col, m, 0))
		}
	}
	free := slices.ContainsFunc(t.key, func(k int16) bool { col := t.column(k); return !col.skip && !col.always && !t.refers(k) })
	if !free {
		return ""
	}
	return "update " + t.sql + " set " + strings.Join(sets, ", ") + c.where(t, n)
}

var literal = regexp.MustCompile(`'((?:[^']|'')*)'`)

// learn makes sure that rows of all tables can be inserted: it tries in a transaction that is rolled
// back, and narrows the values of columns that a check refuses.
func (c *catalog) learn(ctx context.Context, conn *pgx.Conn) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback(ctx) //nolint: it is meant to end so
	for _, t := range c.tables {
		if err := c.learnTable(ctx, tx, t); err != nil {
			return err
		}
	}
	return nil
}

func (c *catalog) learnTable(ctx context.Context, tx pgx.Tx, t *table) error {
	for range 2 {
		sp, err := tx.Begin(ctx)
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if _, err = sp.Exec(ctx, t.path()); err == nil {
			_, err = sp.Exec(ctx, c.insert(t, seeded, 1))
		}
		if err == nil {
			return sp.Commit(ctx)
		}
		if e := sp.Rollback(ctx); e != nil {
			return fmt.Errorf("roll back: %w", e)
		}
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "23514" || !t.narrow() {
			return fmt.Errorf("make a row of %s: %w", t.sql, err)
		}
	}
	return fmt.Errorf("make a row of %s: no value passes its checks", t.sql)
}

// narrow gives every column with a check the literals that the check names as its choices.
func (t *table) narrow() bool {
	moved := false
	for _, col := range t.columns {
		if len(col.choices) > 0 {
			continue
		}
		for _, m := range literal.FindAllStringSubmatch(strings.Join(col.checks, " "), -1) {
			col.choices = append(col.choices, strings.ReplaceAll(m[1], "''", "'"))
			moved = true
		}
	}
	return moved
}
