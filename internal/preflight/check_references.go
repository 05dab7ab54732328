package preflight

import (
	"context"
	"fmt"
	"slices"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/wal"
)

// checkReferences says what becomes of foreign keys where applied rows are not checked against
// them, and how many orphans that has left so far.
func checkReferences(ctx context.Context, f *facts, fs *Findings) error {
	if !f.cfg.Applies() || f.privileges() != config.PrivilegesReplica {
		return nil
	}
	rows, err := f.conn.Query(ctx, `select n.nspname::text, c.relname::text, k.conname::text, pn.nspname::text, p.relname::text
from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_class p on p.oid = k.confrelid join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
where k.contype = 'f' and k.conparentid = 0 order by 1, 2, 3`)
	if err != nil {
		return fmt.Errorf("read foreign keys: %w", err)
	}
	defer rows.Close()
	count, first := 0, ""
	for rows.Next() {
		var holder, parent wal.RelationName
		var name string
		if err := rows.Scan(&holder.Schema, &holder.Name, &name, &parent.Schema, &parent.Name); err != nil {
			return fmt.Errorf("read foreign keys: %w", err)
		}
		if !f.cfg.Selected(parent.Schema, parent.Name) {
			continue
		}
		if !slices.ContainsFunc(f.sel.Tables, func(t *pg.Table) bool { return t.Ref() == holder }) {
			fs.addTable(holder, Warning, "unseen_orphans", "replicate the table too, or look for such rows from time to time",
				"they are not replicated and reference tables that are: a row that another region deletes leaves orphans in them, and nothing records these",
				"table %s is not replicated and references %s: a row that another region deletes leaves orphans in it, and nothing records these", holder, parent)
			continue
		}
		if count++; first == "" {
			first = fmt.Sprintf("%s of %s onto %s", name, holder, parent)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read foreign keys: %w", err)
	}
	if count == 0 {
		return nil
	}
	orphans := 0
	if f.schema.objects["conflict"] {
		// Who may not read the log is told so elsewhere.
		if orphans, err = audit.CountOrphans(ctx, f.conn); err != nil {
			return err
		}
	}
	what := fmt.Sprintf("%d foreign keys are", count)
	if count == 1 {
		what = "a foreign key is"
	}
	remedy := "delete parents in one region only, or set apply.privileges: restorer, which enforces them; pgwaltz conflicts --type fk_orphan lists orphans"
	fs.add(Warning, "foreign_keys", remedy, "%s not enforced for applied rows (%s%s): a row deleted in one region, and one that references it inserted in another, leave an orphan in both; %d recorded so far",
		what, first, map[bool]string{true: ", ...", false: ""}[count > 1], orphans)
	return nil
}
