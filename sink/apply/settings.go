package apply

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// A trigger that fires for applied rows runs in the apply session, and a setting that it changes
// stays changed there: dates that read otherwise, triggers that fire again, another role. So where
// such a trigger is met, the settings are put back behind each statement that may fire it, and at
// the beginning of every transaction, as commits fire triggers too.

// sessionSettings are those beside pg.Pinned that an apply session relies on.
var sessionSettings = []string{"session_authorization", "session_replication_role", "pgwaltz.apply", "plan_cache_mode", "enable_seqscan", "enable_hashjoin", "enable_mergejoin"}

// settings is the statement that puts the settings of a session back.
type settings struct {
	sql string
	on  bool // a table was met whose triggers may change them
}

// readSettings notes the settings of a fresh session.
func (a *Applier) readSettings(ctx context.Context) error {
	rows, err := a.conn.Query(ctx, `select s.name, pg_catalog.current_setting(s.name) from pg_catalog.unnest($1::text[]) as s(name)
where pg_catalog.current_setting(s.name, true) is not null order by s.name`, append(pg.Pinned(), append(sessionSettings, "lock_timeout")...))
	if err != nil {
		return fmt.Errorf("read settings of the session: %w", err)
	}
	var name, value string
	var pairs []string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		pairs = append(pairs, "("+pg.Literal(name)+"::text, "+pg.Literal(value)+"::text)")
		return nil
	})
	if err != nil {
		return fmt.Errorf("read settings of the session: %w", err)
	}
	a.settings = settings{sql: settingsSQL(pairs)}
	return nil
}

// settingsSQL sets what differs.
func settingsSQL(pairs []string) string {
	return "select pg_catalog.set_config(s.name, s.value, false) from (values " + strings.Join(pairs, ", ") +
		") as s(name, value) where pg_catalog.current_setting(s.name) operator(pg_catalog.<>) s.value"
}

// putBack queues the statement that puts the settings back behind one that writes a table, where a
// trigger of the table may have changed them.
func (a *Applier) putBack(ctx context.Context, b *pipeline, t *target) error {
	if !t.schema.disturbs || a.gathering {
		return nil
	}
	b.text(a.settings.sql) // not prepared: a trigger may drop prepared statements as well
	if a.lock != "" {
		b.text(a.lock)
	}
	return nil
}
