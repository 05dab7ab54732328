package hostile

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/checkpoint"
	"github.com/pgwaltz/pgwaltz/checkpoint/pgstore"
	"github.com/pgwaltz/pgwaltz/source/subscribe"
	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
	"github.com/pgwaltz/pgwaltz/wal"
	"github.com/pgwaltz/pgwaltz/wire"
)

func TestMain(m *testing.M) { harness.Main(m) }

// Somebody has the credentials of region b, and b's own store: against embedded servers, and against an
// external one whose users have the documented rights.
func TestHostileRegion(t *testing.T) {
	t.Parallel()
	_, err := harness.FindBinaries()
	pgtest.Found(t, err)
	fleet, err := harness.NewFleet(harness.ClusterConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Close)
	for _, topology := range []harness.Topology{harness.Embedded, harness.External} {
		t.Run(string(topology), func(t *testing.T) {
			s := open(t, fleet, topology)
			for _, attack := range []struct {
				name string
				run  func()
			}{{"refused", s.refused}, {"lies", s.lies}, {"frames", s.frames}} {
				began := time.Now()
				attack.run()
				t.Logf("%s: %s", attack.name, time.Since(began).Round(100*time.Millisecond))
			}
			for _, r := range s.pair.Regions() {
				if line, err := harness.Panicked(r.Sidecar.LogPath); err != nil || line != "" {
					t.Errorf("the log of %s: %s %v", r.Side, line, err)
				}
			}
		})
	}
}

type scene struct {
	*testing.T
	pair    *harness.Pair
	cluster string
	server  *server.Server // the external one, nil where each region has its own
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scene) sql(r *harness.Region, text string) string {
	s.Helper()
	out, err := r.Cluster.PSQL(s.Context(), r.Database, text)
	s.must(err)
	return strings.TrimSpace(out)
}

func (s *scene) until(what string, ok func() (bool, string)) {
	s.Helper()
	s.must(harness.Poll(s.Context(), 2*time.Minute, 100*time.Millisecond, func(context.Context) (bool, string, error) {
		done, why := ok()
		return done, what + ": " + why, nil
	}))
}

func (s *scene) status(r *harness.Region, path string) string {
	s.Helper()
	v, err := r.Sidecar.StatusField(s.Context(), path)
	s.must(err)
	return v
}

// open starts two regions in step. Table secret is not selected by a.
func open(t *testing.T, fleet *harness.Fleet, topology harness.Topology) *scene {
	name := "hostile_" + string(topology)
	pair, err := fleet.Pair(t.Context(), name, harness.PairOptions{})
	s := &scene{T: t, pair: pair, cluster: strings.ReplaceAll(name, "_", "-")}
	s.must(err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, r := range pair.Regions() {
				t.Logf("%s: %s", r.Side, harness.TailFile(r.Sidecar.LogPath, 15))
			}
		}
		pair.Close()
		fleet.Recycle(context.Background(), name, t.Failed())
	})
	if topology == harness.External {
		s.serve()
	}
	for _, r := range pair.Regions() {
		r.Sidecar.Set("publish.confirm", "applied")
		r.Sidecar.Set("publish.heartbeat", "10m") // so that a stream at rest stays as it is
		s.sql(r, "create table t(id int primary key, v text, version bigint not null default 0, updated_at timestamptz not null default now()); create table secret(id int primary key, v text); insert into secret values (1, 'salary')")
	}
	pair.A.Sidecar.Set("tables.include", []any{"public.t"})
	pair.B.Sidecar.Set("tables.include", []any{"public.t"})
	s.must(pair.Setup(t.Context()))
	s.must(pair.A.Sidecar.Start())
	s.must(pair.B.Sidecar.Start())
	s.must(pair.WaitReady(t.Context(), time.Minute))
	s.sql(pair.A, "insert into t(id,v) select g, 'a' from generate_series(1,50) g")
	s.sql(pair.B, "insert into t(id,v) select g, 'b' from generate_series(101,150) g")
	s.must(pair.WaitInStep(t.Context(), 2*time.Minute))
	return s
}

// serve makes both regions users of one server, with the documented rights.
func (s *scene) serve() {
	s.Helper()
	var users []*server.User
	for region, peer := range map[string]string{"a": "b", "b": "a"} {
		r := broker.ClientRights(s.cluster, region, []string{peer})
		users = append(users, &server.User{Username: region, Password: region + "-secret", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: r.Publish}, Subscribe: &server.SubjectPermission{Allow: r.Subscribe},
		}})
	}
	srv, err := server.NewServer(&server.Options{ServerName: "external", Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: s.TempDir(), Users: users})
	s.must(err)
	srv.Start()
	s.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(20 * time.Second) {
		s.Fatal("the external server does not start")
	}
	s.server = srv
	for _, r := range s.pair.Regions() {
		file := filepath.Join(s.TempDir(), r.Name)
		s.must(os.WriteFile(file, []byte(r.Name+"-secret\n"), 0o600))
		for key, value := range map[string]any{"nats.listen": nil, "nats.dial": nil, "nats.url": srv.ClientURL(), "nats.user": r.Name, "nats.password_file": file} {
			r.Sidecar.Set(key, value)
		}
	}
}

func (s *scene) stop(r *harness.Region) {
	s.Helper()
	_, err := r.Sidecar.Stop(s.Context(), time.Minute)
	s.must(err)
}

// client has the credentials of b, and no program of ours: linked to the listener of a, or logged in at
// the external server.
func (s *scene) client() (*nats.Conn, func()) {
	s.Helper()
	quiet := nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})
	if s.server != nil {
		nc, err := nats.Connect(s.server.ClientURL(), nats.UserInfo("b", "b-secret"), nats.CustomInboxPrefix("_INBOX_b.a"), quiet)
		s.must(err)
		return nc, nc.Close
	}
	o := &server.Options{ServerName: "intruder", DontListen: true, NoSigs: true, NoLog: true}
	o.LeafNode.ReconnectInterval = 50 * time.Millisecond
	o.LeafNode.Remotes = []*server.RemoteLeafOpts{{URLs: []*url.URL{{Scheme: "nats-leaf", Host: s.pair.Links["link"].Addr(), User: url.User("b")}}, FirstInfoTimeout: 5 * time.Second}}
	srv, err := server.NewServer(o)
	s.must(err)
	srv.Start()
	if !srv.ReadyForConnections(20 * time.Second) {
		s.Fatal("the intruder's server does not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv), nats.CustomInboxPrefix("_INBOX_b.a"), quiet)
	s.must(err)
	s.until("the intruder to be linked", func() (bool, string) { return srv.NumLeafNodes() > 0, "no link" })
	return nc, func() { nc.Close(); srv.Shutdown(); srv.WaitForShutdown() }
}

// api is how the calls of JetStream for the stream of a begin.
func (s *scene) api() string {
	if s.server != nil {
		return "$JS.API."
	}
	return "pgwaltz." + s.cluster + ".api.a.b."
}

// kept is what an attack on a must leave as it is.
type kept struct {
	Database    string // the tables, what the sidecar has written beside them, and the slot
	Messages    uint64 // of the stream
	Bytes       uint64
	Frame       uint64
	Incarnation uint32
}

// look returns what a keeps, and how much of its WAL is not published.
func (s *scene) look() (now kept, backlog int64) {
	s.Helper()
	st, err := s.pair.A.Sidecar.Status(s.Context())
	s.must(err)
	o := st.Outbound
	return kept{
		Database: s.sql(s.pair.A, `select (select md5(string_agg(t::text, ';' order by id)) from t), (select string_agg(s::text, ';') from secret s), (select region||cluster||token from pgwaltz.node),
			(select count(*) from pgwaltz.conflict), (select count(*) from pgwaltz.parked), (select string_agg(concat_ws(' ', slot_name, active, confirmed_flush_lsn), ';') from pg_replication_slots where database = current_database())`),
		Messages: o.StreamMessages, Bytes: o.StreamBytes, Frame: o.Frame, Incarnation: o.Incarnation,
	}, o.BacklogBytes
}

// rest waits until a has published what it has and stands still, and returns what it keeps then.
func (s *scene) rest() kept {
	s.Helper()
	var last kept
	same := 0
	s.until("a to stand still", func() (bool, string) {
		now, backlog := s.look()
		if same++; now != last || backlog != 0 {
			last, same = now, 0
		}
		return same >= 20, fmt.Sprintf("%+v, %d bytes are not published", now, backlog)
	})
	return last
}

// behind returns when a has heard everything that was said before: what is allowed is answered.
func (s *scene) behind(nc *nats.Conn) {
	s.Helper()
	s.must(nc.Flush())
	s.until("an answer that is allowed", func() (bool, string) {
		_, err := nc.Request(s.api()+"STREAM.INFO."+wire.StreamName(s.cluster, "a"), nil, time.Second)
		return err == nil, fmt.Sprint(err)
	})
}

// refused says everything that b has no right to say, and what makes no sense: nothing changes at all.
// b is away meanwhile, with rows of a that it has not got.
func (s *scene) refused() {
	s.Helper()
	a, b := s.pair.A, s.pair.B
	s.stop(b)
	s.sql(a, "insert into t(id,v) select g, 'not acknowledged' from generate_series(51,60) g")
	before := s.rest()
	nc, end := s.client()
	answered, err := nc.SubscribeSync("_INBOX_b.a.try.>")
	s.must(err)
	stream, inbox := wire.StreamName(s.cluster, "a"), "_INBOX_b.a.try."
	n := 0
	say := func(subject, data string) {
		n++
		s.must(nc.PublishRequest(subject, fmt.Sprintf("%s%d", inbox, n), []byte(data)))
	}
	consumer := func(name string) string {
		return fmt.Sprintf(`{"stream_name":%q,"config":{"name":%q,"durable_name":%q,"deliver_policy":"all","ack_policy":"explicit"}}`, stream, name, name)
	}
	for _, prefix := range []string{s.api(), "$JS.API.", "$JS." + broker.Domain("a") + ".API.", "$JS.hub.API."} {
		for call, data := range map[string]string{
			"INFO": "", "STREAM.NAMES": "", "STREAM.LIST": "", "STREAM.PURGE." + stream: "", "STREAM.DELETE." + stream: "", "STREAM.MSG.DELETE." + stream: `{"seq":1}`,
			"STREAM.UPDATE." + stream: fmt.Sprintf(`{"name":%q,"subjects":["x"],"max_msgs":1}`, stream), "STREAM.CREATE.PLANTED": `{"name":"PLANTED","subjects":["planted"]}`,
			"STREAM.SNAPSHOT." + stream: `{"deliver_subject":"_INBOX_b.a.try.stolen"}`, "STREAM.RESTORE.PLANTED": `{"config":{"name":"PLANTED"}}`,
			"STREAM.LEADER.STEPDOWN." + stream: "", "STREAM.PEER.REMOVE." + stream: `{"peer":"x"}`, "META.LEADER.STEPDOWN": "", "SERVER.REMOVE": `{"peer":"x"}`, "ACCOUNT.PURGE.$G": "",
			"CONSUMER.LIST." + stream: "", "CONSUMER.NAMES." + stream: "", "CONSUMER.DURABLE.CREATE." + stream + ".planted": consumer("planted"),
			"CONSUMER.CREATE." + stream + ".planted": consumer("planted"), "CONSUMER.CREATE." + stream + "." + wire.ConsumerName("a", 0): consumer(wire.ConsumerName("a", 0)),
			"CONSUMER.DELETE." + stream + "." + wire.ConsumerName("a", 0): "", "CONSUMER.PAUSE." + stream + "." + wire.ConsumerName("a", 0): `{"pause_until":"2099-01-01T00:00:00Z"}`,
		} {
			say(prefix+call, data)
		}
	}
	cp := s.checkpoint()
	word := func(peer string, change func(*broker.Ack)) string {
		ack := broker.Ack{Peer: peer, Epoch: cp.Epoch, Incarnation: cp.Incarnation, Frame: cp.FrameNo, Chain: fmt.Sprintf("%x", cp.Chain), EndLSN: cp.EndLSN, Proved: cp.Seen, Session: 7, Number: uint64(n + 1)}
		change(&ack)
		data, err := json.Marshal(ack)
		s.must(err)
		return string(data)
	}
	far := func(x *broker.Ack) { x.Frame += 1000; x.EndLSN += 1 << 40; x.Proved = x.EndLSN }
	// As others, into the stream, and to whoever listens.
	for _, as := range []string{"a", "c", "*"} {
		say(wire.AckSubject(s.cluster, "a", as), word(as, far))
		say(wire.ControlSubject(s.cluster, "a", subscribe.VerbRewind, as), s.rewind(as, cp))
	}
	for _, subject := range []string{wire.Subject(s.cluster, "a"), "$JS.ACK." + stream + ".c.1.1.1.1.0", "$SYS.REQ.SERVER.PING", "_LOCAL.x", "_INBOX_a.a.x", "planted"} {
		say(subject, "forged")
	}
	// As itself, and without sense.
	mine := wire.AckSubject(s.cluster, "a", "b")
	for _, text := range []string{"{", "[]", `"b"`, "\x00\xff", word("a", far), word("c", far),
		word("b", func(x *broker.Ack) { x.Epoch.SystemID++; far(x); x.Incarnation = 0 }), word("b", func(x *broker.Ack) { x.Incarnation = ^uint32(0); far(x) })} {
		say(mine, text)
	}
	for _, text := range []string{"", "{", s.rewind("a", cp), s.rewind("c", cp)} {
		say(wire.ControlSubject(s.cluster, "a", subscribe.VerbRewind, "b"), text)
	}
	say(wire.ControlSubject(s.cluster, "a", "nonsense", "b"), "{}")
	s.behind(nc)
	for {
		m, err := answered.NextMsg(500 * time.Millisecond)
		if err != nil {
			break
		}
		if !strings.Contains(string(m.Data), `"error"`) && len(m.Header) == 0 {
			s.Errorf("%s is answered: %.200s", m.Subject, m.Data)
		}
	}
	end()
	if after := s.rest(); after != before {
		s.Errorf("a was\n%+v, and is\n%+v", before, after)
	}
}

func (s *scene) checkpoint() checkpoint.Checkpoint {
	s.Helper()
	conn, err := s.pair.B.Cluster.Connect(s.Context(), s.pair.B.Database)
	s.must(err)
	defer conn.Close(s.Context())
	cp, found, err := pgstore.Load(s.Context(), conn, "a")
	s.must(err)
	if !found {
		s.Fatal("b has no checkpoint of a")
	}
	return cp
}

func (s *scene) rewind(as string, cp checkpoint.Checkpoint) string {
	s.Helper()
	data, err := json.Marshal(subscribe.RewindRequest{Region: as, Checkpoint: cp, Reason: "it likes to"})
	s.must(err)
	return string(data)
}

// lies says as b what b may say and what is not so, that it has applied all for one: a publishes again at most, as often as the budget
// lets it, gives up no WAL, and b has everything when it is back.
func (s *scene) lies() {
	s.Helper()
	a, b := s.pair.A, s.pair.B
	where := func() string {
		return s.sql(a, "select confirmed_flush_lsn from pg_replication_slots where database = current_database()")
	}
	slot := where()
	cp := s.checkpoint()
	published, err := wal.ParseLSN(s.status(a, "outbound.published_lsn"))
	s.must(err)
	nc, end := s.client()
	for n := range 200 {
		ack := broker.Ack{Peer: "b", Epoch: cp.Epoch, Incarnation: cp.Incarnation, Frame: cp.FrameNo + 200 - uint64(n), Chain: fmt.Sprintf("%064x", n), EndLSN: published, Proved: published, Session: 8, Number: uint64(n + 1)}
		data, err := json.Marshal(ack)
		s.must(err)
		s.must(nc.Publish(wire.AckSubject(s.cluster, "a", "b"), data))
		s.must(nc.PublishRequest(wire.ControlSubject(s.cluster, "a", subscribe.VerbRewind, "b"), "_INBOX_b.a.rewind", []byte(s.rewind("b", cp))))
	}
	s.behind(nc)
	end()
	looks := 0
	s.until("the slot to stay", func() (bool, string) {
		if now := where(); now != slot {
			s.Fatalf("the slot was at %s, and is at %s", slot, now)
		}
		looks++
		return looks == 20, ""
	})
	s.must(b.Sidecar.Start())
	s.must(s.pair.WaitInStep(s.Context(), 3*time.Minute))
	var incarnation int
	if _, err := fmt.Sscan(s.status(a, "outbound.incarnation"), &incarnation); err != nil || incarnation > 30 {
		s.Errorf("a is at incarnation %d, %v", incarnation, err)
	}
	for _, r := range s.pair.Regions() {
		if got := s.sql(r, "select count(*), count(*) filter (where v = 'not acknowledged') from t"); got != "110|10" {
			s.Errorf("%s has %s", r.Side, got)
		}
	}
	if got := s.sql(a, "select count(*) from pgwaltz.conflict"); got != "0" {
		s.Errorf("there are %s conflicts", got)
	}
}

// frames puts frames into the stream of b, behind a true one that a has not read: tables that a does not
// select, what makes no sense, and what is damaged.
func (s *scene) frames() {
	s.Helper()
	a, b := s.pair.A, s.pair.B
	s.stop(a)
	frame := s.status(b, "outbound.frame")
	s.sql(b, "insert into t(id,v) values (200, 'true')")
	s.until("b to have published it", func() (bool, string) { // the backlog alone may be from before the insert
		now, n := s.status(b, "outbound.frame"), s.status(b, "outbound.backlog_bytes")
		return now != frame && n == "0", n + " bytes are not published"
	})
	s.stop(b)
	stream, end := s.streamOfB()
	defer end()
	ctx := s.Context()
	for _, table := range []string{"public.secret", "pgwaltz.node", "pg_catalog.pg_authid"} {
		s.must(stream.Forge(ctx, harness.Forgery{Relation: table, Value: "ATTACK", Next: true, To: "a"}))
	}
	for _, data := range []string{"", "plain text", "\x00\x01\x02"} {
		s.must(stream.Publish(ctx, []byte(data), nil))
	}
	s.must(stream.Forge(ctx, harness.Forgery{Origin: "a", To: "a"}))
	s.must(stream.Forge(ctx, harness.Forgery{Cluster: "another", To: "a"}))
	s.must(stream.Forge(ctx, harness.Forgery{Version: 99, To: "a"}))
	s.must(stream.Forge(ctx, harness.Forgery{Shape: "null-key", Next: true, To: "a"}))
	s.must(a.Sidecar.Start())
	for _, reason := range []string{
		"public.secret is not selected", "pgwaltz.node is not selected", "pg_catalog.pg_authid is not selected", "not a pgwaltz frame",
		fmt.Sprintf("frame of %q/\"a\"", s.cluster), `frame of "another"/"b"`, "unknown frame version 99", "makes no sense",
	} {
		s.until("the quarantine", func() (bool, string) {
			got := s.sql(a, "select coalesce(string_agg(distinct reason, '; '), '') from pgwaltz.quarantine where origin = 'b'")
			return strings.Contains(got, reason), got
		})
	}
	s.until("the true row", func() (bool, string) {
		got := s.sql(a, "select count(*) from t where id = 200")
		return got == "1", got
	})
	if got := s.sql(a, "select (select string_agg(v, ',') from secret), (select region from pgwaltz.node), (select v from t where id = 200), (select count(*) from t), (select count(*) from pgwaltz.parked)"); got != "salary|a|true|111|0" {
		s.Errorf("a has %s", got)
	}
	if enough := s.sql(a, "select count(*) >= 4 from pgwaltz.quarantine where message is not null"); enough != "t" {
		s.Error("messages are not in quarantine")
	}
	s.sql(a, "insert into t(id,v) values (201, 'a goes on')")
	s.until("a to publish", func() (bool, string) {
		n := s.status(a, "outbound.backlog_bytes")
		return n == "0", n
	})
}

// streamOfB is b's own stream, in the hands of somebody who may write into it.
func (s *scene) streamOfB() (*harness.Stream, func()) {
	s.Helper()
	if s.server != nil {
		nc, end := s.client()
		js, err := jetstream.New(nc)
		s.must(err)
		return harness.StreamOver(nc, js, s.cluster, "b"), end
	}
	host, err := broker.New(broker.Config{
		Cluster: s.cluster, Region: "b", Peers: []string{"a"}, StoreDir: filepath.Join(s.pair.Dir(), "b", "nats"), MaxBytes: 1 << 30,
		Dial: []string{"nats-leaf://" + s.pair.Links["link"].Addr()},
	})
	s.must(err)
	s.must(host.Start(s.Context()))
	s.until("b's server", func() (bool, string) { return host.Conn().IsConnected(), "not connected" })
	js, err := host.JS("b")
	s.must(err)
	return harness.StreamOver(host.Conn(), js, s.cluster, "b"), host.Close
}
