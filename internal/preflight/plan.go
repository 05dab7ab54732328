package preflight

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/node"
	"github.com/pgwaltz/pgwaltz/internal/visible"
)

// Statement is one step of setup.
type Statement struct {
	SQL  string
	Why  string
	Done bool // it has been run before, or somebody else did the same
	slot bool // creates the slot, and waits for running transactions
	// origin creates a replication origin, which setup of another database of the server
	// may do at the same moment.
	origin bool
}

// Setup is what setup would do, and what stands in its way.
type Setup struct {
	Statements []Statement
	Findings   Findings
}

// Pending counts the statements that are not done.
func (s *Setup) Pending() int {
	n := 0
	for _, st := range s.Statements {
		if !st.Done {
			n++
		}
	}
	return n
}

// Print writes the statements as a script that psql can run; what is done is commented out.
func (s *Setup) Print(w io.Writer) {
	for _, st := range s.Statements {
		if st.Done {
			head, _, more := strings.Cut(st.SQL, "\n")
			if more {
				head += " ..."
			}
			fmt.Fprintf(w, "-- %s (there already)\n-- %s\n\n", visible.Text(st.Why), visible.Text(head))
			continue
		}
		st.Print(w)
	}
}

// Print writes the statement as a script has it. A name in the remark above it cannot end the remark.
func (st Statement) Print(w io.Writer) {
	fmt.Fprintf(w, "-- %s\n%s;\n\n", visible.Text(st.Why), st.SQL)
}

// planner gathers the statements.
type planner struct {
	*facts
	out Setup
}

func (p *planner) add(done bool, why, sql string) {
	p.out.Statements = append(p.out.Statements, Statement{SQL: sql, Why: why, Done: done})
}

func (p *planner) refuse(code, remedy, format string, args ...any) {
	p.out.Findings.add(Error, code, remedy, format, args...)
}

func (p *planner) warn(code, remedy, format string, args ...any) {
	p.out.Findings.add(Warning, code, remedy, format, args...)
}

// Plan works out setup's statements without running any. conn is the session that would run
// them: the admin's, where postgres.admin_dsn is given. The error says that the database
// could not be read; what it lacks is in the findings.
func Plan(ctx context.Context, conn *pgx.Conn, cfg *config.Config) (*Setup, error) {
	f, err := loadFacts(ctx, conn, cfg)
	if err != nil {
		return nil, fmt.Errorf("plan setup: %w", err)
	}
	p := &planner{facts: f}
	checkPatterns(f, &p.out.Findings)
	if err := checkKeys(ctx, f, &p.out.Findings); err != nil {
		return nil, fmt.Errorf("plan setup: %w", err)
	}
	for _, step := range []func(context.Context) error{
		p.planServer, p.planRole, p.planSchema, p.planRepublisher, p.planNode, p.planGrants, p.planIdentities, p.planRestorer,
		p.planPublication, p.planOrigins, p.planSlot,
	} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("plan setup: %w", err)
		}
	}
	return &p.out, nil
}

// planServer finds what no statement of ours can mend.
func (p *planner) planServer(ctx context.Context) error {
	checkServer(p.facts, &p.out.Findings)
	if p.cfg.Publishes() && p.slot == nil {
		return checkRoom(ctx, p.facts, &p.out.Findings)
	}
	return nil
}

// planRole makes sure that the runtime role exists and may replicate.
func (p *planner) planRole(context.Context) error {
	name := p.runtimeName()
	if p.runtime == nil {
		p.refuse("role_missing", "create role "+pg.Quote(name)+" login replication password '...'", "role %q of postgres.dsn does not exist", name)
		return nil
	}
	if !p.cfg.Publishes() {
		return nil
	}
	sql := "alter role " + pg.Quote(name) + " replication"
	if may := p.runtime.Replication || p.runtime.Superuser; may || p.separate() && p.me.Superuser {
		p.add(may, "the sidecar reads the WAL", sql)
	} else {
		p.refuse("no_replication", "as a superuser: "+sql, "role %q may not replicate (must be superuser or replication role)", name)
	}
	if p.separate() && p.slot == nil && !p.me.Replication && !p.me.Superuser {
		p.refuse("no_replication", "as a superuser: alter role "+pg.Quote(p.me.Name)+" replication",
			"role %q cannot create the slot (must be superuser or replication role)", p.me.Name)
	}
	return nil
}

func (p *planner) planSchema(ctx context.Context) error {
	if err := checkPlanted(ctx, p.facts, &p.out.Findings); err != nil {
		return err
	}
	if !p.schema.exists && !p.me.CreateInDatabase && !p.me.Superuser {
		p.refuse("no_create", fmt.Sprintf("grant create on database %s to %s", pg.Quote(p.sys.Database), pg.Quote(p.me.Name)),
			"role %q may not create schemas and publications in database %q", p.me.Name, p.sys.Database)
	}
	if p.schema.version > SchemaVersion {
		p.refuse("schema_newer", "use the newer program", "schema pgwaltz has version %d, this program knows %d", p.schema.version, SchemaVersion)
	}
	p.add(p.schema.exists, "everything of ours lives in one schema", "create schema if not exists pgwaltz")
	for _, o := range append(objects(), indexes()...) {
		p.add(p.schema.objects[o.name], o.why, o.sql)
		for _, c := range p.schema.lacks(o) {
			p.add(false, "an earlier program made the table without it", c.sql)
		}
	}
	p.add(p.schema.forget == audit.ForgetBody(p.cfg.Audit.Retention), "what is too old goes from the audit log through it", audit.ForgetSQL(p.cfg.Audit.Retention))
	p.add(p.schema.closed, "and nobody else may call it", "revoke all on function "+audit.Forget+" from public")
	p.add(p.schema.version == SchemaVersion, "the version of these tables", "comment on schema pgwaltz is '"+versionComment+"'")
	return nil
}

// planNode names the database.
func (p *planner) planNode(ctx context.Context) error {
	done, me := false, node.Row{Region: p.cfg.Region, Cluster: p.cfg.Cluster}
	if p.schema.objects["node"] {
		owner, err := node.Load(ctx, p.conn)
		if err != nil {
			return err
		}
		if wrong := owner.Differs(me); wrong != "" {
			p.refuse("wrong_node", "point postgres.dsn to the right database, or correct cluster and region", "%s", wrong)
		}
		done = owner.Region != ""
	}
	p.add(done, "this database is region "+p.cfg.Region+" of cluster "+p.cfg.Cluster, node.InsertSQL(me))
	return nil
}
