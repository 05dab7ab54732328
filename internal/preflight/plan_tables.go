package preflight

import (
	"context"
	"fmt"
	"strings"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/internal/config"
	tablecopy "github.com/pgwaltz/pgwaltz/source/copy"
	"github.com/pgwaltz/pgwaltz/wal"
)

// planIdentities gives tables the identity FULL, so that an update or delete carries the
// stamp of the row that it overwrites. An identity that somebody chose stays.
func (p *planner) planIdentities(context.Context) error {
	if !p.cfg.Publishes() {
		return nil
	}
	for _, t := range p.sel.Tables {
		full := wantsFull(p.cfg, t)
		if full && p.pub != nil && !p.pub.Generated && t.HasGenerated('s') {
			p.refuse("publication_generated", generatedRemedy(p.pub.Name), "publication %q leaves generated columns out: the application's updates and deletes of %s would fail under replica identity FULL",
				p.pub.Name, t.Ref())
		}
		if full || t.Identity == wal.IdentityFull && len(t.PrimaryKey) > 0 && p.cfg.Table(t.Schema, t.Name).ReplicaIdentity == config.IdentityFull {
			p.identity(t, !full)
		}
		if !full && t.Identity != wal.IdentityFull {
			continue
		}
		// Partitions do not take the identity of their root, and the WAL names them.
		for _, leaf := range p.sel.Partitions[t.Ref()] {
			p.identity(leaf, leaf.Identity == wal.IdentityFull)
		}
	}
	return nil
}

func (p *planner) identity(t *pg.Table, done bool) {
	sql := "alter table " + t.SQL() + " replica identity full"
	if !done && !p.owners[t.Owner] {
		p.refuse("not_owner", fmt.Sprintf("as %s: %s; or set replica_identity: keep", t.Owner, sql), "table %s belongs to %q", t.Ref(), t.Owner)
		return
	}
	p.add(done, "updates and deletes of "+t.Ref().String()+" carry the row that they overwrite", sql)
}

// planPublication creates the publication or adds tables to it. What is in it stays in it.
func (p *planner) planPublication(context.Context) error {
	if !p.cfg.Publishes() {
		return nil
	}
	name := pg.Quote(p.cfg.Postgres.Publication)
	var missing []*pg.Table
	for _, t := range p.sel.Tables {
		if p.pub == nil || !p.pub.Has(t.Ref()) {
			missing = append(missing, t)
		}
	}
	if len(p.sel.Tables) == 0 {
		p.warn("no_tables", "create the tables and run setup again", "no table is selected: nothing will be published")
	}
	if p.pub != nil && len(missing) > 0 && !p.owners[p.pub.Owner] {
		p.refuse("not_owner", fmt.Sprintf("as %s: alter publication %s add table %s", p.pub.Owner, name, tableList(missing)),
			"publication %q belongs to %q", p.pub.Name, p.pub.Owner)
	}
	if p.pub == nil && p.schema.exists && !p.me.CreateInDatabase && !p.me.Superuser {
		p.refuse("no_create", fmt.Sprintf("grant create on database %s to %s", pg.Quote(p.sys.Database), pg.Quote(p.me.Name)),
			"role %q may not create publications in database %q", p.me.Name, p.sys.Database)
	}
	for _, t := range missing {
		if !p.owners[t.Owner] {
			p.refuse("not_owner", fmt.Sprintf("run setup as %s (postgres.admin_dsn), or exclude the table", t.Owner),
				"table %s belongs to %q, and only an owner may publish it", t.Ref(), t.Owner)
		}
	}
	if len(missing) > 0 && p.cfg.Copy.Mode == config.CopyAuto {
		p.add(false, "rows that are there already are copied; marked before the tables are published, so that none is forgotten", copySQL(missing))
	}
	switch {
	case p.pub == nil && len(missing) == 0:
		p.add(false, "what is published", "create publication "+name+" with ("+p.publicationOptions()+")")
	case p.pub == nil:
		p.add(false, "what is published", "create publication "+name+" for table "+tableList(missing)+" with ("+p.publicationOptions()+")")
	case len(missing) > 0:
		p.add(false, "tables that are new in the publication", "alter publication "+name+" add table "+tableList(missing))
	default:
		p.add(true, "what is published", "create publication "+name+" for table "+tableList(p.sel.Tables)+" with ("+p.publicationOptions()+")")
	}
	return nil
}

// publicationOptions are the options of a publication that setup creates. From 18 on, identity
// FULL wants stored generated columns in the publication; peers compute them by themselves
// and leave the values aside.
func (p *planner) publicationOptions() string {
	o := "publish_via_partition_root = true"
	if p.sys.Version >= 180000 {
		o += ", publish_generated_columns = stored"
	}
	return o
}

// generatedRemedy lets updates through that identity FULL would refuse.
func generatedRemedy(publication string) string {
	return "alter publication " + pg.Quote(publication) + " set (publish_generated_columns = stored)"
}

// tableList names tables for a publication. ONLY keeps children that inherit from a table
// out; they are selected by their own names.
func tableList(tables []*pg.Table) string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.SQL()
		if t.Kind == 'r' && t.HasChildren {
			names[i] = "only " + names[i]
		}
	}
	return strings.Join(names, ", ")
}

func copySQL(tables []*pg.Table) string {
	names := make([]wal.RelationName, len(tables))
	for i, t := range tables {
		names[i] = wal.RelationName{Schema: t.Schema, Name: t.Name}
	}
	return tablecopy.RequestSQL(names)
}
