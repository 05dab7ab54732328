package decoder

import (
	"encoding/binary"
	"slices"

	"github.com/jackc/pglogrepl"

	"github.com/pgwaltz/pgwaltz/wal"
)

// catalogSchema is what an empty schema name stands for in pgoutput.
const catalogSchema = "pg_catalog"

// onRelation caches a description. The server repeats descriptions whenever its own cache was
// invalidated; one that says nothing new keeps its *wal.Relation, so that those who compare
// pointers see a change only where there is one.
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
	var err error
	if rel.PrimaryKey, err = d.primaryKey(rel); err != nil {
		return err
	}
	if old := d.relations[m.RelationID]; old != nil && equal(old, rel) {
		return nil
	}
	d.relations[m.RelationID] = rel
	return nil
}

// primaryKey asks the configuration for the key of rel and keeps an answer that can be true.
func (d *Decoder) primaryKey(rel *wal.Relation) ([]int, error) {
	if d.cfg.PrimaryKey == nil || rel.Identity != wal.IdentityFull && rel.Identity != wal.IdentityDefault {
		return nil, nil
	}
	pk, err := d.cfg.PrimaryKey(rel.Schema, rel.Name, rel.Columns)
	if err != nil {
		return nil, err
	}
	pk = slices.Clone(pk)
	if len(pk) == 0 {
		return nil, nil
	}
	for i, p := range pk {
		if p < 0 || p >= len(rel.Columns) || !rel.Columns[p].Key || slices.Contains(pk[:i], p) {
			return nil, nil
		}
	}
	if rel.Identity == wal.IdentityDefault {
		flagged := 0
		for i := range rel.Columns {
			if rel.Columns[i].Key {
				flagged++
			}
		}
		if flagged != len(pk) {
			return nil, nil
		}
	}
	return pk, nil
}

func equal(a, b *wal.Relation) bool {
	return a.Schema == b.Schema && a.Name == b.Name && a.Identity == b.Identity &&
		slices.Equal(a.Columns, b.Columns) && slices.Equal(a.PrimaryKey, b.PrimaryKey)
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
	return rel, nil
}
