package native

import (
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/internal/fallback"
	"github.com/pgwaltz/pgwaltz/internal/node"
	"github.com/pgwaltz/pgwaltz/wal"
)

// found is a region us that applies what eu publishes, in step by the stream, with both sidecars stopped.
func found(version int) (*config.Config, *Local, *Peer) {
	cfg := config.Default()
	cfg.Cluster, cfg.Region, cfg.Direction = "shop", "us", config.DirectionApply
	item := wal.RelationName{Schema: "public", Name: "item"}
	l := &Local{
		System: pg.System{SystemID: 2, Timeline: 1, Version: version, Database: "d"}, Role: &pg.Role{Name: "postgres", Superuser: true}, MayCreate: true, Ready: true, Runtime: "postgres", Workers: 4, Origins: 10,
		Tables: []*pg.Table{{Schema: "public", Name: "item", Identity: wal.IdentityFull, PrimaryKey: []string{"id"}, Columns: []pg.Column{{Name: "id"}, {Name: "body"}}}},
		Filled: map[wal.RelationName]bool{item: true},
	}
	p := &Peer{
		Region: "eu", DSN: config.NewDSN("host=eu dbname=d user=r password=geheim"), System: pg.System{SystemID: 1, Timeline: 3, Version: version, Database: "d"}, Replication: true,
		Place: node.Place{Row: node.Row{Region: "eu", Cluster: "shop"}}, SlotName: "s", Slot: &pg.Slot{Name: "s", Plugin: "pgoutput", Database: "d", ConfirmedFlushLSN: 100, WALStatus: "reserved"},
		Publication: &pg.Publication{Tables: []pg.PublishedTable{{Name: item, Columns: []string{"id", "body"}}}}, Received: map[wal.RelationName]bool{},
		Checkpoint: &checkpoint.Checkpoint{Origin: "eu", Epoch: wal.Epoch{SystemID: 1, Timeline: 3, Slot: "s"}, EndLSN: 0x200},
	}
	return cfg, l, p
}

func TestDecideHandsTheSlotOver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		version   int
		change    func(cfg *config.Config, l *Local, p *Peer)
		refused   string
		runs, not []string
	}{
		{"in step", 150000, func(*config.Config, *Local, *Peer) {}, "", []string{"create_slot = false, slot_name = \"s\", copy_data = false", "pg_replication_origin_advance('pg_' || s.oid, '0/200')", "enable"}, []string{"origin = none", "geheim"}},
		{"16", 160000, func(*config.Config, *Local, *Peer) {}, "", []string{"origin = none"}, nil},
		{"both ways, 15", 150000, both, "loop", nil, nil},
		{"both ways, one has 15", 160000, func(cfg *config.Config, l *Local, p *Peer) { both(cfg, l, p); p.System.Version = 150000 }, "loop", nil, nil},
		{"both ways, 16", 160000, both, "", []string{"origin = none"}, nil},
		{"both ways, other tables", 150000, func(cfg *config.Config, l *Local, p *Peer) {
			both(cfg, l, p)
			l.Publication.Tables[0].Name.Name = "other"
		}, "", nil, nil},
		{"handed on", 150000, func(_ *config.Config, _ *Local, p *Peer) { p.Received[p.Publication.Tables[0].Name] = true }, "loop", nil, nil},
		{"confirmed beyond", 150000, func(_ *config.Config, _ *Local, p *Peer) { p.Slot.ConfirmedFlushLSN = 0x201 }, "only_in_stream", nil, nil},
		{"confirmed just there", 150000, func(_ *config.Config, _ *Local, p *Peer) { p.Slot.ConfirmedFlushLSN = 0x200 }, "", nil, nil},
		{"another timeline", 150000, func(_ *config.Config, _ *Local, p *Peer) { p.System.Timeline++ }, "other_wal", nil, nil},
		{"another server", 150000, func(_ *config.Config, _ *Local, p *Peer) { p.System.SystemID = 7 }, "other_wal", nil, nil},
		{"a sidecar reads", 150000, func(_ *config.Config, _ *Local, p *Peer) { p.Slot.Active = true }, "slot_in_use", nil, nil},
		{"gone", 150000, func(_ *config.Config, _ *Local, p *Peer) { p.Slot = nil }, "slot_missing", nil, nil},
		{"lost", 150000, func(_ *config.Config, _ *Local, p *Peer) { p.Slot.WALStatus = "lost" }, "slot_lost", nil, nil},
		{"another database's", 150000, func(_ *config.Config, _ *Local, p *Peer) { p.Slot.Database = "e" }, "wrong_slot", nil, nil},
		{"copies", 150000, func(_ *config.Config, _ *Local, p *Peer) { p.Copying = 1 }, "copy_open", nil, nil},
		{"created and cut off", 150000, func(_ *config.Config, _ *Local, p *Peer) { p.Sub = subscription(false, 0) }, "", []string{"pg_replication_origin_advance", "enable"}, []string{"create subscription"}},
		{"created, cut off, and written by somebody", 150000, func(_ *config.Config, _ *Local, p *Peer) {
			p.Sub = subscription(false, 0)
			p.Slot.ConfirmedFlushLSN = 0x300
		}, "only_in_stream", nil, nil},
		{"advanced and cut off", 150000, func(_ *config.Config, _ *Local, p *Peer) { p.Sub = subscription(false, 0x200) }, "", []string{"enable"}, []string{"create subscription", "advance"}},
		{"paused", 150000, func(_ *config.Config, _ *Local, p *Peer) {
			p.Sub = subscription(false, 0x300)
			p.Slot.ConfirmedFlushLSN = 0x300
		}, "", []string{"enable"}, []string{"advance"}},
		{"at work", 150000, func(_ *config.Config, l *Local, p *Peer) {
			p.Sub, p.Slot.Active, p.Slot.ConfirmedFlushLSN = subscription(true, 0x300), true, 0x300
			l.ModeTable, l.Mode = true, &fallback.Row{Mode: config.ModeNative, Settled: true}
		}, "", nil, []string{"enable", "insert into"}},
		{"fresh, filled", 150000, func(_ *config.Config, _ *Local, p *Peer) { p.Checkpoint = nil }, "table_not_empty", nil, nil},
		{"fresh, equal already", 150000, func(cfg *config.Config, _ *Local, p *Peer) { p.Checkpoint, cfg.Copy.Mode = nil, config.CopyOff }, "", []string{"copy_data = false"}, []string{"advance"}},
		{"fresh, no slot", 150000, func(_ *config.Config, l *Local, p *Peer) { p.Checkpoint, p.Slot, l.Filled = nil, nil, nil }, "", []string{"create_slot = true", "copy_data = true"}, []string{"advance"}},
		{"may not replicate", 150000, func(_ *config.Config, _ *Local, p *Peer) { p.Replication = false }, "no_replication", nil, nil},
		{"no right", 150000, func(_ *config.Config, l *Local, _ *Peer) { l.MayCreate = false }, "no_subscription_right", nil, nil},
		{"no worker", 150000, func(_ *config.Config, l *Local, _ *Peer) { l.Workers = 0 }, "too_few_workers", nil, nil},
		{"another role runs", 150000, func(_ *config.Config, l *Local, _ *Peer) { l.Runtime = "app" }, "", []string{"create table", "grant select on pgwaltz.mode to \"app\""}, nil},
		{"another role runs, cut off behind the table", 150000, func(_ *config.Config, l *Local, _ *Peer) { l.Runtime, l.ModeTable = "app", true }, "", []string{"grant select"}, []string{"create table"}},
	} {
		cfg, l, p := found(c.version)
		c.change(cfg, l, p)
		plan := Decide(cfg, l, []*Peer{p})
		var codes, text []string
		for _, f := range plan.Findings.Errors() {
			codes = append(codes, f.Code)
		}
		for _, s := range plan.Statements {
			if !s.Done {
				var b strings.Builder
				s.Print(&b)
				text = append(text, b.String())
			}
		}
		all := strings.Join(text, "")
		if got := strings.Join(codes, " "); got != c.refused {
			t.Errorf("%s: refused %q, want %q", c.name, got, c.refused)
		}
		for _, want := range c.runs {
			if !strings.Contains(all, want) {
				t.Errorf("%s: no %q in\n%s", c.name, want, all)
			}
		}
		for _, no := range append(c.not, "geheim") {
			if strings.Contains(all, no) {
				t.Errorf("%s: %q in\n%s", c.name, no, all)
			}
		}
	}
}

// both makes us a region that publishes the same table.
func both(cfg *config.Config, l *Local, p *Peer) {
	cfg.Direction = config.DirectionBoth
	tables := append([]pg.PublishedTable{}, p.Publication.Tables...)
	l.Publication = &pg.Publication{Name: "pgwaltz", Tables: tables}
}

func subscription(enabled bool, progress wal.LSN) *Subscription {
	return &Subscription{Enabled: enabled, Slot: "s", Progress: progress, Tables: map[wal.RelationName]byte{{Schema: "public", Name: "item"}: 'r'}}
}

func TestDecideTheWayBack(t *testing.T) {
	t.Parallel()
	cfg, l, p := found(160000)
	both(cfg, l, p)
	p.Sub, l.Mode = subscription(true, 0x300), &fallback.Row{Mode: config.ModeNative, Settled: true}
	resync := fallback.Statement{Shown: "-- resync"}
	show := func(plan *fallback.Plan) string {
		var b strings.Builder
		for _, s := range plan.Statements {
			if !s.Done {
				s.Print(&b)
			}
		}
		return b.String()
	}
	if text := show(DecideStream(cfg, l, []*Peer{p}, resync)); strings.Contains(text, "parked discard") {
		t.Errorf("nothing is parked, and it is discarded:\n%s", text)
	}
	p.Parked = 2
	text := show(DecideStream(cfg, l, []*Peer{p}, resync))
	at := -1
	for _, want := range []string{"insert into pgwaltz.mode", "parked discard --origin", "update pgwaltz.checkpoint", "disable", "slot_name = none", "drop subscription", "-- resync", "settled = true"} {
		i := strings.Index(text, want)
		if i <= at {
			t.Fatalf("%q is not behind the one before in\n%s", want, text)
		}
		at = i
	}
	cfg.Direction = config.DirectionApply
	if text := show(DecideStream(cfg, l, []*Peer{p}, resync)); strings.Contains(text, "resync") {
		t.Errorf("a region that publishes nothing copies nothing:\n%s", text)
	}
	l.ModeTable, l.Mode, p.Sub = true, &fallback.Row{Mode: config.ModeStream, Settled: true}, nil
	if text := show(DecideStream(cfg, l, []*Peer{p}, resync)); text != "" {
		t.Errorf("in mode stream already, and it runs\n%s", text)
	}
}
