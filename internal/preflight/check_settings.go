package preflight

import (
	"context"
	"fmt"
	"strings"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// harmful are settings of a role or a database that reach the sidecar's sessions, which cannot or
// should not override them, and what they do there. Those that a session can override are pinned
// when it is opened.
var harmful = map[string]string{
	"session_replication_role":    "triggers and foreign keys do not work, for the application as well",
	"session_preload_libraries":   "the libraries see and may change every statement of the sidecar",
	"local_preload_libraries":     "the libraries see and may change every statement of the sidecar",
	"wal_sender_timeout":          "the server may end the connection that reads the slot, or never give up one that is dead",
	"temp_file_limit":             "copies and large transactions may fail",
	"ignore_system_indexes":       "every look into the catalog reads all of it",
	"zero_damaged_pages":          "damaged rows are dropped without a word, here only",
	"default_table_access_method": "side tables may be made with another access method",
}

// checkSettings names settings of the runtime role and of this database that get in the way.
func checkSettings(ctx context.Context, f *facts, fs *Findings) error {
	if f.runtime == nil {
		return nil
	}
	rows, err := f.conn.Query(ctx, `select coalesce(r.rolname::text, ''), s.setdatabase <> 0, c.v
from pg_catalog.pg_db_role_setting s left join pg_catalog.pg_roles r on r.oid = s.setrole cross join lateral pg_catalog.unnest(s.setconfig) as c(v)
where s.setdatabase in (0, (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()))
  and (s.setrole = 0 or r.rolname = $1) order by 1, 2, 3`, f.runtime.Name)
	if err != nil {
		return fmt.Errorf("read settings of role and database: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var role, setting string
		var here bool
		if err := rows.Scan(&role, &here, &setting); err != nil {
			return fmt.Errorf("read settings of role and database: %w", err)
		}
		name, value, _ := strings.Cut(setting, "=")
		what, bad := harmful[name]
		if !bad || name == "session_replication_role" && value != "replica" {
			continue
		}
		remedy := "alter database " + pg.Quote(f.sys.Database) + " reset " + name
		if role != "" {
			remedy = "alter role " + pg.Quote(role)
			if here {
				remedy += " in database " + pg.Quote(f.sys.Database)
			}
			remedy += " reset " + name
		}
		fs.add(Warning, "setting", remedy, "%s is set to %q for the sidecar's sessions: %s", name, value, what)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read settings of role and database: %w", err)
	}
	return nil
}
