package apply

import "github.com/pgwaltz/pgwaltz/wal"

// ledger is the name under which entries of a relation's rows are kept (tombstone.Index.Ledger): for an own change that of the table that it was made in, and
// for all others that of the table here that has the name.
func (a *Applier) ledger(rel *wal.Relation) wal.RelationName {
	x := a.cfg.Index
	switch {
	case !x.Renamed():
		return rel.Ref()
	case a.cfg.Self:
		return x.Own(rel)
	}
	return x.Ledger(a.oids[rel.Ref()], rel.Ref())
}
