package settings

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/test/harness"
)

type ctxt = context.Context

// merge: what is replicated, what decides, what is written down of it.
func merge(s *scene) {
	s.open(harness.PairOptions{}, `
create table docs(id int primary key, v text, rev bigint not null default 0, changed timestamptz not null default now());
create table ruled(id int primary key, v text, n bigint not null default 0, at timestamptz not null default now());
create table hidden(id int primary key, version bigint, updated_at timestamptz);
create schema other; create table other.docs(id int primary key);
create function tick() returns trigger language plpgsql as 'begin return new; end'; create trigger tick before update on docs for each row execute function tick();
select pg_replication_origin_create(o) from unnest(array['tool_in_use','tool_not_named']) o where not exists (select from pg_replication_origin where roname = o);`)
	a, b := s.pair.A, s.pair.B
	public, private, err := ed25519.GenerateKey(nil)
	s.must(err)
	key := base64.StdEncoding.EncodeToString(public)
	keyFile := s.write("key", base64.StdEncoding.EncodeToString(private.Seed()))
	store := filepath.Join(s.TempDir(), "store")
	for _, r := range s.pair.Regions() {
		s.give(r, map[string]any{
			"cluster": "acme", "postgres.dsn": r.Cluster.DSN(r.Database), "postgres.slot": "my_slot_" + r.Name, "postgres.publication": "my_pub",
			"tables.include": []any{"public.*"}, "tables.exclude": []any{"public.hidden"},
			"stamps.version": "rev", "stamps.updated_at": "changed", "stamps.order": "time", "replica_identity": "keep",
			"audit.redact": []any{"*.docs.v"}, "audit.retention": "48h", "apply.privileges": "restorer", "tombstones.min_age": "1h",
		})
		if s.from == file {
			r.Sidecar.Set("tables.rules", []any{map[string]any{
				"match": "public.ruled", "version": "n", "updated_at": "at", "order": "version", "replica_identity": "full",
			}})
			s.Cleanup(func() {
				if !s.Failed() {
					s.proofs.add("tables.rules[].match", "tables.rules[].version", "tables.rules[].updated_at", "tables.rules[].order", "tables.rules[].replica_identity")
				}
			})
		}
	}
	s.give(a, map[string]any{
		"region": "a", "forward_origins": []any{"tool_in_use"}, "signing.key_file": keyFile, "max_clock_skew": "10h", "nats.store_dir": store,
		"nats.max_bytes": "123MiB", "publish.compress": false, "publish.max_frame": "16KiB", "publish.confirm": "published", "log.level": "debug", "log.format": "json",
	})
	s.give(b, map[string]any{"log.level": "error", "publish.heartbeat": "300ms"})
	s.known(b, "a", key)
	s.start()
	s.want(a, "select cluster, region from pgwaltz.node", "acme|a")
	s.want(a, "select count(*) from pg_replication_slots where slot_name = 'my_slot_a' and active", "1")
	s.want(a, "select string_agg(schemaname||'.'||tablename, ',' order by tablename) from pg_publication_tables where pubname = 'my_pub'", "public.docs,public.ruled")
	s.want(a, "select relreplident from pg_class where oid = 'docs'::regclass", "d")
	if s.from == file {
		s.want(a, "select relreplident from pg_class where oid = 'ruled'::regclass", "f")
	}
	s.want(a, "select count(*) > 0 from pg_trigger where tgrelid = 'docs'::regclass and tgname like '%pgwaltz%'", "t")
	for path, want := range map[string]string{"cluster": "acme", "region": "a", "outbound.confirm_mode": "published", "outbound.stream_max_bytes": fmt.Sprint(123 << 20)} {
		if got := s.status(a, path); got != want {
			s.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(store, "nats", "*")); len(files) == 0 {
		s.Error("nothing is stored in nats.store_dir")
	}
	if line, _, _ := strings.Cut(s.log(a), "\n"); !strings.HasPrefix(line, "{") || !strings.Contains(s.log(a), `"level":"DEBUG"`) {
		s.Errorf("no debug lines in JSON: %s", line)
	}
	if strings.Contains(s.log(b), "level=INFO") || strings.Contains(s.log(b), "level=WARN") {
		s.Error("log.level error writes more")
	}
	before := s.number(b, "outbound.frame")
	s.within("heartbeats", func() (bool, string) {
		n := s.number(b, "outbound.frame")
		return n >= before+4, fmt.Sprint(n - before)
	})

	// Origins: of two tools, the one that is named.
	for i, tool := range []string{"tool_in_use", "tool_not_named"} {
		s.sql(a, fmt.Sprintf(`begin; select pg_replication_origin_session_setup('%s'); select pg_replication_origin_xact_setup('0/1', now()); insert into docs(id) values (%d); commit; select pg_replication_origin_session_reset()`, tool, 100+i))
	}
	s.sql(a, "insert into docs(id,v,changed) select g,'first','2024-01-01' from generate_series(1,3) g; insert into ruled(id,v,at) select g,'first','2024-01-01' from generate_series(1,2) g; insert into hidden values (1)")
	s.inStep()
	s.want(b, "select count(*) filter (where id = 100), count(*) filter (where id = 101) from docs", "1|0")
	s.want(b, "select count(*) from hidden", "0")

	// Conflicts, and a large row while nobody takes it.
	s.pair.Links["link"].Cut()
	s.sql(a, "update docs set v = 'SECRET a', rev = 5, changed = '2024-02-01' where id = 1; update docs set v = 'SECRET a', rev = 5, changed = '2024-02-02' where id = 2; update ruled set v = 'a', n = 5, at = '2024-02-01' where id = 1; update ruled set v = 'a', n = 1, at = '2024-02-03' where id = 2; delete from docs where id = 3")
	s.sql(b, "select pg_sleep(0.2); update docs set v = 'SECRET b', rev = 2, changed = '2024-02-02' where id = 1; update docs set v = 'SECRET b', rev = 2, changed = '2024-02-02' where id = 2; update ruled set v = 'b', n = 2, at = '2024-02-02' where id = 1; update ruled set v = 'b', n = 1, at = '2024-02-02' where id = 2")
	bytes, messages := s.number(a, "outbound.stream_bytes"), s.number(a, "outbound.stream_messages")
	s.sql(a, "insert into docs(id,v) values (4, repeat('x', 300000))")
	s.within("a large row in the stream", func() (bool, string) {
		d, n := s.number(a, "outbound.stream_bytes")-bytes, s.number(a, "outbound.stream_messages")-messages
		return d >= 300_000 && n >= 18, fmt.Sprintf("%.0f bytes in %.0f messages", d, n)
	})
	s.pair.HealAll()
	s.inStep()
	s.want(b, "select string_agg(right(v,1), '' order by id) from docs where id <= 2", "ba")
	if s.from == file {
		s.want(b, "select string_agg(v, '' order by id) from ruled", "aa")
	}
	s.want(a, "select count(*) > 0, count(*) filter (where local_row::text || remote_row::text like '%SECRET%') from pgwaltz.conflict where table_name = 'docs'", "t|0")

	// Clocks.
	s.sql(a, "insert into docs(id,changed) values (200, now() + interval '2 hours')")
	s.sql(b, "insert into docs(id,changed) values (201, now() + interval '2 hours')")
	s.inStep()
	s.until(b, "select count(*) > 0 from pgwaltz.conflict where type = 'clock_skew'", "t")
	s.want(a, "select count(*) from pgwaltz.conflict where type = 'clock_skew'", "0")

	// What is old goes: 72 hours in the audit log, two hours as a tombstone.
	s.sql(a, "update pgwaltz.conflict set detected_at = now() - interval '72 hours'; update pgwaltz.tombstone set deleted_at = now() - interval '3 hours' where not live")
	s.until(a, "select count(*) from pgwaltz.conflict where table_name = 'docs'", "0")
	s.until(a, "select count(*) from pgwaltz.tombstone where not live", "0")

	// Who signs with another key is not believed.
	other, _, err := ed25519.GenerateKey(nil)
	s.must(err)
	_, err = b.Sidecar.Stop(s.Context(), 30*time.Second)
	s.must(err)
	s.known(b, "a", base64.StdEncoding.EncodeToString(other))
	s.run(b)
	s.sql(a, "insert into docs(id) values (300)")
	s.until(b, "select count(*) > 0 from pgwaltz.quarantine where reason ~ 'sign'", "t")
	s.want(b, "select count(*) from docs where id = 300", "0")
}

// known lists a peer with its public key.
func (s *scene) known(r *harness.Region, peer, key string) {
	if s.from == file {
		r.Sidecar.Set("peers", []any{map[string]any{"region": peer, "public_key": key}})
		s.proofs.add("peers[].region", "peers[].public_key")
		return
	}
	s.set(r.Sidecar, "peers", peer+"="+key)
	s.proofs.add("peers")
}
