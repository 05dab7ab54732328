package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// TableSettings is what holds for one table after the rules.
type TableSettings struct {
	Version, UpdatedAt string // column names, "" for none
	Order              Order
	ReplicaIdentity    ReplicaIdentity
}

// Selected reports whether the table is to be replicated: it matches an include pattern and
// no exclude pattern, and does not belong to the system or to pgwaltz itself.
func (c *Config) Selected(schema, table string) bool {
	if SystemSchema(schema) {
		return false
	}
	return MatchAny(c.Tables.Include, schema, table) && !MatchAny(c.Tables.Exclude, schema, table)
}

// Selection names the patterns that Selected goes by: equal for configurations that select the same tables by the same ones.
func (c *Config) Selection() string {
	h := sha256.New()
	for _, list := range [][]Pattern{c.Tables.Include, c.Tables.Exclude} {
		for _, p := range list {
			fmt.Fprintf(h, "%q ", p.text)
		}
		fmt.Fprintln(h)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// Excluded reports whether an exclude pattern names the table.
func (c *Config) Excluded(schema, table string) bool {
	return MatchAny(c.Tables.Exclude, schema, table)
}

// SystemSchema reports whether tables of the schema are never replicated.
func SystemSchema(schema string) bool {
	return schema == "pgwaltz" || schema == "information_schema" || schema == "pglogical" || strings.HasPrefix(schema, "pg_")
}

// Table returns the settings of one table. The first rule that matches and sets a value
// decides that value.
func (c *Config) Table(schema, table string) TableSettings {
	t := TableSettings{
		Version: c.Stamps.Version, UpdatedAt: c.Stamps.UpdatedAt, Order: c.Stamps.Order, ReplicaIdentity: c.ReplicaIdentity,
	}
	var version, updated, order, identity bool
	for _, r := range c.Tables.Rules {
		if !r.Match.Match(schema, table) {
			continue
		}
		if r.Version != nil && !version {
			t.Version, version = *r.Version, true
		}
		if r.UpdatedAt != nil && !updated {
			t.UpdatedAt, updated = *r.UpdatedAt, true
		}
		if r.Order != "" && !order {
			t.Order, order = r.Order, true
		}
		if r.ReplicaIdentity != "" && !identity {
			t.ReplicaIdentity, identity = r.ReplicaIdentity, true
		}
	}
	return t
}

// Redacted reports whether the column's values are kept out of the audit log.
func (c *Config) Redacted(schema, table, column string) bool {
	for _, p := range c.Audit.Redact {
		if p.Match(schema, table, column) {
			return true
		}
	}
	return false
}

// MatchAny reports whether one of some patterns names the table.
func MatchAny(ps []Pattern, schema, table string) bool {
	for _, p := range ps {
		if p.Match(schema, table) {
			return true
		}
	}
	return false
}
