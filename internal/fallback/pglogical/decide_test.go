package pglogical

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/fallback/native"
	"github.com/pgwaltz/pgwaltz/internal/node"
	"github.com/pgwaltz/pgwaltz/internal/status"
	"github.com/pgwaltz/pgwaltz/wal"
)

var item = wal.RelationName{Schema: "public", Name: "item"}

// found is a region us that applies what eu publishes, in step by the stream behind the preparation, with both sidecars stopped.
func found() (*config.Config, *Local, *Peer) {
	cfg := config.Default()
	cfg.Cluster, cfg.Region, cfg.Direction = "shop", "us", config.DirectionApply
	cfg.Peers = []config.Peer{{Region: "eu"}}
	cfg.Postgres.DSN = config.NewDSN("host=us dbname=d user=r password=geheim")
	publication := &pg.Publication{Tables: []pg.PublishedTable{{Name: item, Columns: []string{"id", "body"}}}}
	l := &Local{Local: &native.Local{
		System: pg.System{SystemID: 2, Timeline: 1, Version: 150000, Database: "d"}, Role: &pg.Role{Name: "postgres", Superuser: true}, Ready: true, Runtime: "postgres", Publication: publication,
		Tables: []*pg.Table{{Schema: "public", Name: "item", Identity: wal.IdentityFull, PrimaryKey: []string{"id"}, Columns: []pg.Column{{Name: "id"}, {Name: "body"}}}},
		Filled: map[wal.RelationName]bool{item: true},
	}, Available: true, Loaded: true, CommitTimestamps: true, Workers: 20, Readable: true, Granted: true, Members: map[wal.RelationName]bool{}}
	p := &Peer{Peer: &native.Peer{
		Region: "eu", DSN: config.NewDSN("host=eu dbname=d user=r password=geheim"), System: pg.System{SystemID: 1, Timeline: 3, Version: 150000, Database: "d"}, Replication: true,
		Place: node.Place{Row: node.Row{Region: "eu", Cluster: "shop"}}, SlotName: "s", Slot: &pg.Slot{Name: "s", Plugin: "pgoutput", Database: "d", ConfirmedFlushLSN: 0x100, WALStatus: "reserved"},
		Publication: publication, Checkpoint: &checkpoint.Checkpoint{Origin: "eu", Epoch: wal.Epoch{SystemID: 1, Timeline: 3, Slot: "s"}, EndLSN: 0x200},
	}, Node: "eu", Members: map[wal.RelationName]bool{item: true}, Prepared: 0x180}
	return cfg, l, p
}

func both(cfg *config.Config, _ *Local, _ *Peer) { cfg.Direction = config.DirectionBoth }

func TestDecide(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		change    func(cfg *config.Config, l *Local, p *Peer)
		refused   string
		runs, not []string
	}{
		{"handed over", func(*config.Config, *Local, *Peer) {}, "", []string{"create extension", "apply_remote", "create_node(node_name := 'us'", "begin; select pglogical.create_subscription", "sync_status = 'r'",
			"pg_copy_logical_replication_slot", "pg_replication_origin_advance(sub_slot_name::text, '0/200')", "alter_subscription_enable", "pgwaltz.pglogical_conflicts", "settled = true"}, []string{"create_replication_set"}},
		{"stream behind the set", func(_ *config.Config, _ *Local, p *Peer) { p.Prepared = 0x201 }, "not_prepared", nil, nil},
		{"no set noted", func(_ *config.Config, _ *Local, p *Peer) { p.Prepared = 0 }, "not_prepared", nil, nil},
		{"no node there", func(_ *config.Config, _ *Local, p *Peer) { p.Node = "" }, "peer_not_prepared", nil, nil},
		{"both write", both, "standstill", nil, nil},
		{"both write, at a standstill", func(cfg *config.Config, l *Local, p *Peer) { both(cfg, l, p); cfg.Copy.Mode = config.CopyOff }, "", []string{"last_update_wins", "synchronize_data := false, forward_origins := '{}'", "replication_set_add_table"}, []string{"begin;", "copy_logical"}},
		{"both write, fresh", func(cfg *config.Config, l *Local, p *Peer) { both(cfg, l, p); p.Checkpoint, l.Filled = nil, nil }, "", []string{"synchronize_data := true", "replica identity default", "replication_set_add_table(set_name := 'rep_all'", "prepared"}, nil},
		{"fresh, filled", func(_ *config.Config, _ *Local, p *Peer) { p.Checkpoint = nil }, "table_not_empty", nil, nil},
		{"no superuser", func(_ *config.Config, l *Local, _ *Peer) { l.Role.Superuser = false }, "no_superuser", nil, nil},
		{"not installed", func(_ *config.Config, l *Local, _ *Peer) { l.Available = false }, "no_extension", nil, nil},
		{"not loaded", func(_ *config.Config, l *Local, _ *Peer) { l.Loaded = false }, "not_preloaded", nil, nil},
		{"no times", func(cfg *config.Config, l *Local, p *Peer) {
			both(cfg, l, p)
			p.Checkpoint, l.Filled, l.CommitTimestamps = nil, nil, false
		}, "no_commit_timestamps", nil, nil},
		{"no times, and none needed", func(_ *config.Config, l *Local, _ *Peer) { l.CommitTimestamps = false }, "", nil, nil},
		{"no worker", func(_ *config.Config, l *Local, _ *Peer) { l.Workers = 2 }, "too_few_workers", nil, nil},
		{"not set up", func(_ *config.Config, l *Local, _ *Peer) { l.Ready = false }, "no_schema", nil, nil},
		{"another node", func(_ *config.Config, l *Local, _ *Peer) { l.Node = "other" }, "", nil, []string{"create_node"}},
		{"no key", func(_ *config.Config, l *Local, _ *Peer) { l.Tables[0].PrimaryKey = nil }, "no_primary_key", nil, nil},
		{"no table", func(_ *config.Config, l *Local, _ *Peer) { l.Tables = nil }, "table_missing", nil, nil},
		{"a row filter", func(cfg *config.Config, l *Local, p *Peer) {
			both(cfg, l, p)
			cfg.Copy.Mode, l.Publication.Tables[0].RowFilter = config.CopyOff, "id > 1"
		}, "row_filter", nil, nil},
		{"created and cut off", func(_ *config.Config, _ *Local, p *Peer) { p.Sub = &Subscription{Name: "x", Slot: "y"} }, "", []string{"copy_logical", "advance", "where sub_name = 'x'", "enable('x'"}, []string{"create_subscription"}},
		{"copied and cut off", func(_ *config.Config, _ *Local, p *Peer) {
			p.Sub, p.OwnSlot = &Subscription{Name: "x", Slot: "y"}, &pg.Slot{}
		}, "", []string{"advance", "enable"}, []string{"copy_logical"}},
		{"at work", func(_ *config.Config, l *Local, p *Peer) {
			p.Sub, p.OwnSlot = &Subscription{Name: "x", Slot: "y", Enabled: true, Progress: 0x300}, &pg.Slot{}
			l.Reader, l.Extension, l.Node, l.Resolution, l.ModeTable, l.Mode = true, true, "us", "apply_remote", true, &fallback.Row{Mode: config.ModePglogical, Settled: true}
		}, "", nil, []string{"select", "insert", "create"}},
		{"another role runs", func(_ *config.Config, l *Local, _ *Peer) { l.Runtime, l.Granted = "app", false }, "", []string{`grant usage on schema pglogical to "app"`}, nil},
	} {
		cfg, l, p := found()
		c.change(cfg, l, p)
		plan := Decide(cfg, l, []*Peer{p}, Names{})
		var codes []string
		for _, f := range plan.Findings.Errors() {
			codes = append(codes, f.Code)
		}
		if got := strings.Join(codes, " "); got != c.refused {
			t.Errorf("%s: refused %q, want %q", c.name, got, c.refused)
		}
		all, at := show(plan), -1
		for _, want := range c.runs {
			i := strings.Index(all, want)
			if i < 0 || c.name == "handed over" && i <= at {
				t.Errorf("%s: no %q in its place in\n%s", c.name, want, all)
			}
			at = i
		}
		for _, no := range append(c.not, "geheim") {
			if strings.Contains(all, no) {
				t.Errorf("%s: %q in\n%s", c.name, no, all)
			}
		}
	}
	cfg, l, _ := found()
	l.Node = "other"
	if plan := Prepare(cfg, l, Names{Node: "mine"}); len(plan.Findings) != 1 || plan.Findings[0].Code != "node_differs" {
		t.Errorf("%+v", plan.Findings)
	}
}

// show is what a plan would run.
func show(plan *fallback.Plan) string {
	var b strings.Builder
	for _, s := range plan.Statements {
		if !s.Done {
			s.Print(&b)
		}
	}
	return b.String()
}

func TestDecideTheWayBack(t *testing.T) {
	t.Parallel()
	cfg, l, p := found()
	both(cfg, l, p)
	p.Sub, p.OwnSlot = &Subscription{Name: "x", Slot: "y", Enabled: true}, &pg.Slot{ConfirmedFlushLSN: 0x300}
	l.Mode, l.ModeTable, l.Set, l.Prepared = &fallback.Row{Mode: config.ModePglogical, Settled: true}, true, true, 7
	l.Members[item] = true
	l.Tables[0].Identity = wal.IdentityDefault
	back := func() (string, *fallback.Plan) {
		plan := DecideStream(cfg, l, []*Peer{p}, fallback.Statement{Shown: "-- resync"})
		return show(plan), plan
	}
	text, _ := back()
	at := -1
	for _, want := range []string{"insert into pgwaltz.mode", "alter_subscription_disable('x'", "pg_replication_slot_advance('s'", "drop_subscription('x')", "replica identity full", "drop_replication_set", "prepared = null", "-- resync", "settled = true"} {
		i := strings.Index(text, want)
		if i <= at {
			t.Fatalf("%q is not behind the one before in\n%s", want, text)
		}
		at = i
	}
	l.Slots = 1
	if text, plan := back(); strings.Contains(text, "drop_replication_set") || len(plan.Findings) != 1 || plan.Findings[0].Code != "set_is_read" {
		t.Errorf("while somebody reads the set: %+v\n%s", plan.Findings, text)
	}
	p.Slot.Active = true
	if _, plan := back(); plan.Findings.Errors()[0].Code != "slot_in_use" {
		t.Errorf("%+v", plan.Findings)
	}
	p.Err = errors.New("away")
	if _, plan := back(); plan.Findings.Errors()[0].Code != "peer_unread" {
		t.Errorf("%+v", plan.Findings)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := func(sub *Subscription, word string, slot *pg.Slot, err error) Seen {
		return Seen{At: now, Sub: sub, Word: word, Slot: slot, PeerErr: err}
	}
	on, off := &Subscription{Name: "x", Enabled: true}, &Subscription{Name: "x"}
	copying := &Subscription{Name: "x", Enabled: true, Tables: map[wal.RelationName]byte{item: 'd', {Schema: "public", Name: "other"}: 'r'}}
	slot, far, lost := &pg.Slot{}, &pg.Slot{CurrentLSN: native.Behind + 1}, &pg.Slot{WALStatus: "lost"}
	for _, c := range []struct {
		name string
		seen Seen
		want status.State
		says string
	}{
		{"well", at(on, "replicating", slot, nil), status.Replicating, ""},
		{"far", at(on, "replicating", far, nil), status.CatchingUp, "behind"},
		{"initial", at(on, "initializing", nil, nil), status.CatchingUp, "initializing"},
		{"copies", at(copying, "replicating", slot, nil), status.CatchingUp, "1 tables"},
		{"off", at(off, "disabled", slot, nil), status.Down, "alter_subscription_enable('x')"},
		{"down", at(on, "down", slot, nil), status.Down, "for ever"},
		{"away", at(on, "down", nil, errors.New("no route")), status.Partitioned, "no route"},
		{"not asked", at(on, "replicating", nil, errors.New("no route")), status.Replicating, "no route"},
		{"gone", at(on, "down", nil, nil), status.Gap, "is gone"},
		{"lost", at(on, "down", lost, nil), status.Gap, "is lost"},
		{"none", at(nil, "", nil, nil), status.Down, "mode switch pglogical"},
	} {
		h := &History{}
		in, _ := Judge("eu", "x", c.seen, h.Note(c.seen))
		if in.State != c.want || !strings.Contains(in.Reason, c.says) {
			t.Errorf("%s: %s, %q; want %s, %q", c.name, in.State, in.Reason, c.want, c.says)
		}
	}
	// A worker that is started again for a moment is not well.
	h := &History{}
	h.Note(at(on, "down", slot, nil))
	again := at(on, "replicating", slot, nil)
	if again.At = now.Add(5 * time.Second); !h.Note(again) {
		t.Error("forgotten after 5 s")
	}
	if again.At = now.Add(fallen); h.Note(again) {
		t.Error("never forgotten")
	}
}
