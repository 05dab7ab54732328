package preflight

import (
	"context"
	"slices"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/adapter/rowkey"
	"github.com/pgwaltz/pgwaltz/wal"
)

// checkKeys refuses tables whose rows cannot be told apart in the same way in every region.
func checkKeys(ctx context.Context, f *facts, fs *Findings) error {
	for _, t := range f.sel.Tables {
		if ordinaryKey(t) {
			continue
		}
		k, err := rowkey.Load(ctx, f.conn, t.Ref())
		if err != nil {
			return err
		}
		if column, why := k.Unknown(); column != "" {
			fs.addTable(t.Ref(), Error, "key_equality", "make a hash operator class with the same equality for the type, or exclude the table", "",
				"key column %s of %s: when two values are equal is not known: %s", column, t.Ref(), why)
		}
		if f.cfg.Publishes() && t.Identity != wal.IdentityFull && slices.ContainsFunc(k.Columns, func(c rowkey.Column) bool { return c.Generated != "" }) && !wantsFull(f.cfg, t) {
			fs.addTable(t.Ref(), Error, "generated_key", "alter table "+t.SQL()+" replica identity full", "",
				"the key of %s is generated, and without the identity FULL the WAL does not say which row a delete removed", t.Ref())
		}
	}
	return nil
}

// ordinaryKey reports whether a table's key is made of the usual types, which need no look.
func ordinaryKey(t *pg.Table) bool {
	for _, name := range append(slices.Clone(t.PrimaryKey), t.IdentityIndex...) {
		c := t.Column(name)
		if c == nil || c.Generated != 0 {
			return false
		}
		switch c.TypeOID {
		case 20, 21, 23, 25, 1043, 1700, 2950: // int8 int2 int4 text varchar numeric uuid
		default:
			return false
		}
	}
	return true
}
