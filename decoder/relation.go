package decoder

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/jackc/pglogrepl"

	"github.com/pgwaltz/pgwaltz/wal"
)

// catalogSchema is what an empty schema name stands for in pgoutput.
const catalogSchema = "pg_catalog"

// onRelation caches a description. The server repeats descriptions whenever its own cache was
// invalidated; one that says nothing new keeps its *wal.Relation, so that those who compare
// pointers see a change only where there is one. But within a transaction that has changed rows of the relation before,
// values may have been converted in between (ALTER TABLE ... USING to the same type): where old images would show
// that, an equal description is another one.
func (d *Decoder) onRelation(body []byte) error {
	if err := checkRelation(body); err != nil {
		return err
	}
	var m pglogrepl.RelationMessage
	if err := m.Decode(body); err != nil {
		return malformed("%v", err)
	}
	rel := &wal.Relation{
		Schema:   m.Namespace,
		Name:     m.RelationName,
		OID:      m.RelationID,
		Identity: wal.Identity(m.ReplicaIdentity),
		Columns:  make([]wal.Column, len(m.Columns)),
	}
	if rel.Schema == "" {
		rel.Schema = catalogSchema
	}
	for i, c := range m.Columns {
		rel.Columns[i] = wal.Column{
			Name:    c.Name,
			OID:     c.DataType,
			Type:    d.types[c.DataType],
			TypeMod: c.TypeModifier,
			Key:     c.Flags&1 != 0,
		}
	}
	if err := d.identify(rel); err != nil {
		return err
	}
	if err := d.number(rel, m.RelationID); err != nil {
		return err
	}
	if old := d.relations[m.RelationID]; old != nil && equal(old, rel) && !(rel.Identity == wal.IdentityFull && d.changed(old)) {
		return nil
	}
	d.relations[m.RelationID] = rel
	return nil
}

// changed reports whether the open transaction may have changed rows of a relation already.
func (d *Decoder) changed(rel *wal.Relation) bool {
	return d.tx.open && (d.tx.part > 0 || slices.ContainsFunc(d.slab.changes.part(), func(c wal.Change) bool { return c.Relation == rel }))
}

// identify asks the configuration for the key of rel and keeps an answer that can be true.
func (d *Decoder) identify(rel *wal.Relation) error {
	if d.cfg.Key == nil || rel.Identity == wal.IdentityNothing {
		return nil
	}
	sent := slices.Clone(rel.Columns)
	if err := d.cfg.Key(rel); err != nil {
		return fmt.Errorf("find the key of %s: %w", rel, err)
	}
	if !plausible(rel, len(sent)) {
		rel.Columns, rel.PrimaryKey, rel.Deferrable, rel.Partitioned, rel.NotNull = sent, nil, false, false, nil
	}
	return nil
}

// number asks the configuration what the columns of rel are.
func (d *Decoder) number(rel *wal.Relation, oid uint32) error {
	if d.cfg.Number == nil {
		return nil
	}
	delete(d.unnumbered, oid)
	again, err := d.cfg.Number(rel, oid, wal.LSN(d.begin.FinalLSN))
	if err != nil {
		return fmt.Errorf("find what the columns of %s are: %w", rel, err)
	}
	if again != 0 {
		d.unnumbered[oid] = again
	}
	return nil
}

// plausible reports whether an answer fits what the WAL says of the table, whose message named
// the given number of columns.
func plausible(rel *wal.Relation, sent int) bool {
	if len(rel.PrimaryKey) == 0 || len(rel.Columns) < sent {
		return false
	}
	for i, p := range rel.PrimaryKey {
		if p < 0 || p >= len(rel.Columns) || !rel.Columns[p].Key || slices.Contains(rel.PrimaryKey[:i], p) {
			return false
		}
	}
	for i := sent; i < len(rel.Columns); i++ {
		if !rel.Columns[i].Computed {
			return false
		}
	}
	if rel.Identity == wal.IdentityFull {
		return true
	}
	flagged := 0
	for i := range rel.Columns {
		if rel.Columns[i].Key {
			flagged++
		}
	}
	return flagged == len(rel.PrimaryKey)
}

func equal(a, b *wal.Relation) bool {
	return a.Schema == b.Schema && a.Name == b.Name && a.Identity == b.Identity && a.Deferrable == b.Deferrable &&
		slices.Equal(a.Columns, b.Columns) && slices.Equal(a.PrimaryKey, b.PrimaryKey) && a.Partitioned == b.Partitioned && slices.Equal(a.NotNull, b.NotNull)
}

// onType caches the name of a user type. It comes before each relation that uses the type.
func (d *Decoder) onType(body []byte) error {
	if err := checkType(body); err != nil {
		return err
	}
	var m pglogrepl.TypeMessage
	if err := m.Decode(body); err != nil {
		return malformed("%v", err)
	}
	if m.Namespace == "" {
		m.Namespace = catalogSchema
	}
	d.types[m.DataType] = m.Namespace + "." + m.Name
	return nil
}

// relation reads the relation oid at the head of a row message and returns what follows it.
func (d *Decoder) relation(body []byte) (*wal.Relation, []byte, error) {
	if len(body) < 4 {
		return nil, nil, malformed("it ends inside the relation oid")
	}
	rel, err := d.relationByID(binary.BigEndian.Uint32(body))
	return rel, body[4:], err
}

func (d *Decoder) relationByID(oid uint32) (*wal.Relation, error) {
	rel := d.relations[oid]
	if rel == nil {
		return nil, unknownRelation(oid)
	}
	if again, ok := d.unnumbered[oid]; ok && wal.LSN(d.begin.FinalLSN) >= again {
		now := *rel
		now.Columns = slices.Clone(rel.Columns)
		if err := d.number(&now, oid); err != nil {
			return nil, err
		}
		if now.Numbered() {
			rel = &now
			d.relations[oid] = rel
		}
	}
	return rel, nil
}
