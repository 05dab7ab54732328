package broker_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
	"github.com/pgwaltz/pgwaltz/wire"
)

// A hostile client: a NATS server of the attacker's own, without any of our restrictions, linked
// to a region with whatever credentials it has, and a client that says what it wants.

// authority signs certificates.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, public, private)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.key = private
	writePEM(t, filepath.Join(a.dir, "ca.pem"), "CERTIFICATE", der)
	return a
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue makes a certificate for a name, valid until a time, and returns its files.
func (a *authority) issue(t *testing.T, name string, until time.Time) broker.TLS {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: []string{"acme"}}, DNSNames: []string{name + ".example"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(nil, tmpl, a.cert, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	files := broker.TLS{CertFile: filepath.Join(a.dir, name+".pem"), KeyFile: filepath.Join(a.dir, name+".key"), CAFile: filepath.Join(a.dir, "ca.pem")}
	writePEM(t, files.CertFile, "CERTIFICATE", der)
	writePEM(t, files.KeyFile, "PRIVATE KEY", key)
	return files
}

func clientTLS(t *testing.T, files broker.TLS) *tls.Config {
	t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true} // the attacker does not care whom it talks to
	if files.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg
}

// Two servers of one name are one to the listener, which ends the older link.
var intruders atomic.Int32

// intruder links to a listener.
type intruder struct {
	t   *testing.T
	srv *server.Server
	nc  *nats.Conn

	mu    sync.Mutex
	heard []string // subjects
}

func intrude(t *testing.T, target string, change func(*server.RemoteLeafOpts)) *intruder {
	t.Helper()
	r := &server.RemoteLeafOpts{URLs: []*url.URL{{Scheme: "nats-leaf", Host: target}}, FirstInfoTimeout: 5 * time.Second}
	if change != nil {
		change(r)
	}
	o := &server.Options{ServerName: fmt.Sprintf("intruder-%d", intruders.Add(1)), DontListen: true, NoSigs: true, NoLog: true}
	o.LeafNode.ReconnectInterval = 50 * time.Millisecond
	o.LeafNode.Remotes = []*server.RemoteLeafOpts{r}
	return newIntruder(t, o)
}

func newIntruder(t *testing.T, o *server.Options) *intruder {
	t.Helper()
	srv, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the intruder's server does not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return &intruder{t: t, srv: srv, nc: nc}
}

func (i *intruder) linked() bool { return i.srv.NumLeafNodes() > 0 }

// listen notes what comes on the subjects.
func (i *intruder) listen(subjects ...string) {
	i.t.Helper()
	for _, s := range subjects {
		if _, err := i.nc.Subscribe(s, func(m *nats.Msg) {
			i.mu.Lock()
			defer i.mu.Unlock()
			i.heard = append(i.heard, m.Subject)
		}); err != nil {
			i.t.Fatal(err)
		}
	}
	if err := i.nc.Flush(); err != nil {
		i.t.Fatal(err)
	}
}

// calls are all that JetStream can be asked, with what would do harm where it were granted.
func calls(prefix, stream, other string) map[string]string {
	c := func(name, extra string) string {
		return fmt.Sprintf(`{"stream_name":%q,"config":{"name":%q,"deliver_policy":"all","ack_policy":"none","mem_storage":true,"inactive_threshold":600000000000%s}}`, stream, name, extra)
	}
	out := map[string]string{
		"INFO": "", "STREAM.NAMES": "", "STREAM.LIST": "", "STREAM.PURGE." + stream: "", "STREAM.DELETE." + stream: "",
		"STREAM.MSG.DELETE." + stream:      `{"seq":1}`,
		"STREAM.CREATE.PLANTED":            `{"name":"PLANTED","subjects":["planted.>"],"storage":"memory"}`,
		"STREAM.UPDATE." + stream:          fmt.Sprintf(`{"name":%q,"subjects":["x"],"max_msgs":1,"storage":"file"}`, stream),
		"STREAM.SNAPSHOT." + stream:        `{"deliver_subject":"stolen"}`,
		"STREAM.RESTORE.PLANTED":           `{"config":{"name":"PLANTED"}}`,
		"STREAM.LEADER.STEPDOWN." + stream: "", "STREAM.PEER.REMOVE." + stream: `{"peer":"x"}`, "STREAM.CANCEL_MOVE." + stream: "",
		"META.LEADER.STEPDOWN": "", "SERVER.REMOVE": `{"peer":"x"}`, "ACCOUNT.PURGE.$G": "", "ACCOUNT.STREAM.MOVE.$G." + stream: "",
		"CONSUMER.NAMES." + stream: "", "CONSUMER.LIST." + stream: "",
		"CONSUMER.CREATE." + stream:                                                                c("", ""),
		"CONSUMER.CREATE." + stream + ".mallory":                                                   c("mallory", ""),
		"CONSUMER.DURABLE.CREATE." + stream + ".planted":                                           strings.Replace(c("", ""), `"name":""`, `"durable_name":"planted"`, 1),
		"CONSUMER.CREATE." + stream + "." + wire.ConsumerName(other, 7):                            c(wire.ConsumerName(other, 7), ""),
		"CONSUMER.CREATE." + stream + "." + wire.ConsumerName("us", 0) + "." + "pgwaltz.test.eu.f": c(wire.ConsumerName("us", 0), `,"filter_subject":"pgwaltz.test.eu.f"`),
		"CONSUMER.INFO." + stream + "." + wire.ConsumerName(other, 0):                              "",
		"CONSUMER.DELETE." + stream + "." + wire.ConsumerName(other, 0):                            "",
		"CONSUMER.PAUSE." + stream + "." + wire.ConsumerName(other, 0):                             `{"pause_until":"2099-01-01T00:00:00Z"}`,
		"CONSUMER.RESET." + stream + "." + wire.ConsumerName(other, 0):                             "",
		"CONSUMER.LEADER.STEPDOWN." + stream + "." + wire.ConsumerName(other, 0):                   "",
		"CONSUMER.UNPIN." + stream + "." + wire.ConsumerName(other, 0):                             `{"group":"x"}`,
	}
	for n := range 200 {
		name := fmt.Sprintf("flood-%d", n)
		out["CONSUMER.CREATE."+stream+"."+name] = c(name, "")
	}
	all := map[string]string{}
	for k, v := range out {
		all[prefix+k] = v
	}
	return all
}

// attack says everything to the region victim as somebody who has the credentials of us, and
// returns what was answered other than by an error.
func (i *intruder) attack(victim, other string, prefixes ...string) []string {
	i.t.Helper()
	stream := wire.StreamName(cluster, victim)
	var mu sync.Mutex
	var answered []string
	inbox := nats.NewInbox()
	through := "_INBOX_us." + victim + ".x"
	for _, in := range []string{inbox, through} { // the second one is let through
		if _, err := i.nc.Subscribe(in+".>", func(m *nats.Msg) {
			mu.Lock()
			defer mu.Unlock()
			if !strings.Contains(string(m.Data), `"error"`) && m.Header.Get("Status") == "" {
				answered = append(answered, m.Subject[strings.Index(m.Subject, "$"):])
			}
		}); err != nil {
			i.t.Fatal(err)
		}
	}
	publish := func(subject, reply, data string) {
		if err := i.nc.PublishRequest(subject, reply, []byte(data)); err != nil {
			i.t.Fatal(err)
		}
	}
	for _, prefix := range prefixes {
		for subject, data := range calls(prefix, stream, other) {
			publish(subject, inbox+"."+subject, data)
			publish(subject, through+"."+subject, data)
		}
	}
	for _, s := range []string{
		wire.Subject(cluster, victim), wire.Subject(cluster, other), wire.AckSubject(cluster, victim, other), wire.AckSubject(cluster, victim, victim),
		wire.ControlSubject(cluster, victim, "echo", other), wire.ControlSubject(cluster, victim, "echo", victim), "pgwaltz." + cluster + ".ctl." + victim + ".echo",
		"_LOCAL.x.y", "$SYS.REQ.SERVER.PING", "$SYS.ACCOUNT.$G.CONNECT", "$JS.ACK." + stream + ".c.1.1.1.1.0", "$JS.FC." + stream + ".c.x", "planted.x", "plain",
	} {
		publish(s, through+".$"+s, `{"peer":"`+other+`","frame":999,"end_lsn":"FF/0"}`)
	}
	// What is allowed is answered behind all of this: then it was all heard.
	in := "_INBOX_us." + victim + ".allowed"
	sub, err := i.nc.SubscribeSync(in)
	if err != nil {
		i.t.Fatal(err)
	}
	brokertest.Until(i.t, "an answer that is allowed", func() bool {
		publish("$JS."+broker.Domain(victim)+".API.STREAM.INFO."+stream, in, "")
		_, err := sub.NextMsg(200 * time.Millisecond)
		return err == nil
	})
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(answered)
}

// unharmed asserts that the stream of a region is as before, and that nobody has consumers but
// the given regions.
func unharmed(t *testing.T, b *broker.Broker, messages uint64, readers ...string) {
	t.Helper()
	js, err := b.JS(b.Region())
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(ctx(t), wire.StreamName(cluster, b.Region()))
	if err != nil {
		t.Fatal(err)
	}
	if st := s.CachedInfo().State; st.Msgs != messages || st.FirstSeq != 1 || st.LastSeq != messages {
		t.Errorf("the stream of %s holds %d messages, %d to %d", b.Region(), st.Msgs, st.FirstSeq, st.LastSeq)
	}
	if c := s.CachedInfo().Config; c.MaxMsgs != -1 || !slices.Equal(c.Subjects, []string{wire.Subject(cluster, b.Region())}) {
		t.Errorf("the stream of %s was changed: %+v", b.Region(), c)
	}
	for n := range s.ConsumerNames(ctx(t)).Name() {
		if !slices.ContainsFunc(readers, func(r string) bool { return strings.HasPrefix(n, "pgwaltz-"+r+"-") }) {
			t.Errorf("there is a consumer %s on the stream of %s", n, b.Region())
		}
	}
	for n := range js.StreamNames(ctx(t)).Name() {
		if !strings.HasPrefix(n, "PGWALTZ_") {
			t.Errorf("stream %s was planted", n)
		}
	}
}

// hub is a region that listens, with two peers, and everything that somebody may want of it.
func hub(t *testing.T, change func(*broker.Config)) (eu *broker.Broker, acks, asked func() []string) {
	t.Helper()
	cfg := broker.Config{Region: "eu", Peers: []string{"us", "ap"}, Listen: "127.0.0.1:0"}
	if change != nil {
		change(&cfg)
	}
	eu = brokertest.Start(t, cfg)
	fill(t, eu, "eu", 5)
	var mu sync.Mutex
	var a, q []string
	if _, err := eu.SubscribeAcks(func(x broker.Ack) { mu.Lock(); a = append(a, x.Peer); mu.Unlock() }); err != nil {
		t.Fatal(err)
	}
	if _, err := eu.Serve("echo", func(_ context.Context, asker string, _ []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		q = append(q, asker)
		return nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	read := func(p *[]string) func() []string {
		return func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(*p) }
	}
	return eu, read(&a), read(&q)
}

// With the credentials of one region nobody gets further than that region has to.
func TestHostilePeerOfTheListener(t *testing.T) {
	t.Parallel()
	eu, acks, asked := hub(t, nil)
	ap := brokertest.Start(t, broker.Config{Region: "ap", Peers: []string{"eu", "us"}, Dial: []string{"nats-leaf://" + eu.LinkAddr()}})
	fill(t, ap, "ap", 5)
	brokertest.Until(t, "link", func() bool { return eu.PeerReachable("ap") && ap.PeerReachable("eu") })
	i := intrude(t, eu.LinkAddr(), func(r *server.RemoteLeafOpts) { r.URLs[0].User = url.User("us") })
	brokertest.Until(t, "the intruder's link", i.linked)
	i.listen(">", "_INBOX.>", "_INBOX_eu.>", "_INBOX_ap.>", "_LOCAL.>", "pgwaltz.>", "$SYS.>", wire.Subject(cluster, "eu"), wire.AckSubject(cluster, "eu", "ap"))
	// What the others say to each other it does not hear.
	pull(t, ap, "eu", 5)
	pull(t, eu, "ap", 5)
	sent := 0
	brokertest.Until(t, "an acknowledgement of ap", func() bool {
		if err := ap.PublishAck("eu", broker.Ack{}); err != nil {
			t.Fatal(err)
		}
		sent++
		return slices.Contains(acks(), "ap")
	})
	if _, err := ap.Request(ctx(t), "eu", "echo", nil); err != nil {
		t.Fatal(err)
	}
	for _, s := range i.subjects() {
		if !strings.HasPrefix(s, "pgwaltz.test.ctl.us.") && !strings.HasPrefix(s, "$JS.pgwaltz-us.") && !strings.HasPrefix(s, "_INBOX_us.") {
			t.Errorf("the intruder hears %s", s)
		}
	}
	// A ping behind the acknowledgements of ap has its answer when those that arrive have arrived.
	brokertest.Until(t, "the acknowledgements of ap to be counted", func() bool {
		n := len(acks())
		if _, err := ap.Request(ctx(t), "eu", "echo", nil); err != nil {
			t.Fatal(err)
		}
		return n == sent || n == len(acks())
	})
	before, before2 := len(acks()), len(asked())
	for _, victim := range []string{"eu", "ap"} {
		other := map[string]string{"eu": "ap", "ap": "eu"}[victim]
		if got := i.attack(victim, other, "$JS."+broker.Domain(victim)+".API.", "$JS.API."); len(got) > 0 {
			t.Errorf("%s has granted: %v", victim, got)
		}
	}
	if got := acks()[before:]; len(got) != 0 {
		t.Errorf("acknowledgements of %v were taken", got)
	}
	if got := asked()[before2:]; len(got) != 0 {
		t.Errorf("requests of %v were answered", got)
	}
	unharmed(t, eu, 5, "ap")
	unharmed(t, ap, 5, "eu")
	// It cannot put messages among those of another region, nor answer for it: what eu reads of ap
	// comes in where us may not speak.
	for _, from := range []string{"ap", "eu"} {
		silentAt(t, i.nc, eu.ConnOf(from), "us for "+from)
	}
	// What it has to be able to do, it can.
	nc, err := nats.Connect("", nats.InProcessServer(i.srv), nats.CustomInboxPrefix("_INBOX_us.eu"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.NewWithDomain(nc, broker.Domain("eu"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := js.CreateConsumer(ctx(t), wire.StreamName(cluster, "eu"), jetstream.ConsumerConfig{Name: wire.ConsumerName("us", 3), AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true})
	if err != nil {
		t.Fatalf("its own consumer: %v", err)
	}
	if _, err := c.Next(jetstream.FetchMaxWait(5 * time.Second)); err != nil {
		t.Errorf("the first message: %v", err)
	}
}

// silentAt asserts that what somebody says into the inboxes of a connection is not heard there.
func silentAt(t *testing.T, somebody, conn *nats.Conn, what string) {
	t.Helper()
	in := conn.NewInbox()
	sub, err := conn.SubscribeSync(in + ".*")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := somebody.Publish(in+".1", []byte("forged")); err != nil {
			t.Fatal(err)
		}
		if err := somebody.Flush(); err != nil {
			t.Fatal(err)
		}
		if m, err := sub.NextMsg(50 * time.Millisecond); err == nil {
			t.Errorf("%s: %s was heard", what, m.Subject)
			return
		}
	}
}

// Without the credentials of a region nobody gets in, and with them as that region only.
func TestWhoGetsIn(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	hour := time.Now().Add(time.Hour)
	tokens := t.TempDir()
	token := filepath.Join(tokens, "ap")
	empty := filepath.Join(tokens, "empty")
	for path, text := range map[string]string{token: "ap-token\n", empty: "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	eu, _, _ := hub(t, func(c *broker.Config) { c.TLS = ca.issue(t, "eu", hour) })
	named, _, _ := hub(t, func(c *broker.Config) {
		c.TLS = ca.issue(t, "eu-2", hour)
		c.Identities = map[string]broker.Identity{"us": {Certificate: "us.example"}, "ap": {Certificate: "ap", TokenFile: token}}
	})
	secret, _, _ := hub(t, func(c *broker.Config) {
		c.Identities = map[string]broker.Identity{"us": {NKey: nkeyPublic}, "ap": {TokenFile: token}}
	})
	hollow, _, _ := hub(t, func(c *broker.Config) {
		c.Identities = map[string]broker.Identity{"us": {TokenFile: empty}, "ap": {TokenFile: empty}}
	})
	other := newAuthority(t)
	for name, c := range map[string]struct {
		at    *broker.Broker
		tls   broker.TLS
		plain bool
		user  *url.Userinfo
		nkey  string
		let   string // the region that it is let in as; "" for nobody
	}{
		"certificate of the region":                    {at: eu, tls: ca.issue(t, "us", hour), let: "us"},
		"any other certificate of the authority":       {at: eu, tls: ca.issue(t, "mallory", hour)},
		"the listener's own certificate":               {at: eu, tls: ca.issue(t, "eu-3", hour)},
		"a certificate that says us, the user says ap": {at: eu, tls: ca.issue(t, "us", hour), user: url.User("ap"), let: "us"},
		"no certificate":                               {at: eu},
		"no TLS":                                       {at: eu, plain: true},
		"an expired certificate":                       {at: eu, tls: ca.issue(t, "us", time.Now().Add(-time.Minute))},
		"another authority":                            {at: eu, tls: other.issue(t, "us", hour)},
		"the configured name":                          {at: named, tls: ca.issue(t, "us", hour), let: "us"},
		"a certificate without the token":              {at: named, tls: ca.issue(t, "ap", hour), user: url.UserPassword("ap", "wrong")},
		"a certificate and the token":                  {at: named, tls: ca.issue(t, "ap", hour), user: url.UserPassword("ap", "ap-token"), let: "ap"},
		"another's certificate and the token":          {at: named, tls: ca.issue(t, "mallory", hour), user: url.UserPassword("ap", "ap-token")},
		"nothing":                                      {at: secret, plain: true},
		"a name and nothing else":                      {at: secret, plain: true, user: url.User("us")},
		"the token":                                    {at: secret, plain: true, user: url.UserPassword("us", "ap-token"), let: "ap"},
		"the NKey":                                     {at: secret, plain: true, nkey: nkeySeed, let: "us"},
		"another NKey":                                 {at: secret, plain: true, nkey: otherSeed(t)},
		"the local user":                               {at: secret, plain: true, user: url.UserPassword("pgwaltz-local", "x")},
		"an empty token":                               {at: hollow, plain: true, user: url.UserPassword("us", "")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := intrude(t, c.at.LinkAddr(), func(r *server.RemoteLeafOpts) {
				r.URLs[0].User = c.user
				if !c.plain {
					r.TLS, r.TLSTimeout, r.TLSConfig = true, 5, clientTLS(t, c.tls)
				}
				r.Nkey = c.nkey
			})
			if c.let == "" {
				time.AfterFunc(1500*time.Millisecond, i.srv.Shutdown)
				i.srv.WaitForShutdown()
				if i.linked() || c.at.PeerReachable("us") || c.at.PeerReachable("ap") {
					t.Error("it was let in")
				}
				return
			}
			brokertest.Until(t, "the link", i.linked)
			// It may ask as itself, and not as the other one.
			answered := func(as string) bool {
				_, err := i.nc.Request("pgwaltz.test.ctl."+c.at.Region()+".echo."+as, nil, time.Second)
				inboxed := i.ask(c.at, as)
				return err == nil || inboxed
			}
			// The link says a moment after it is made what is listened to behind it.
			brokertest.Until(t, "an answer to "+c.let, func() bool { return answered(c.let) })
			for _, as := range []string{"us", "ap"} {
				if as != c.let && answered(as) {
					t.Errorf("let in as %s, it may ask as %s", c.let, as)
				}
			}
		})
	}
}

// ask sends a request whose answer may come back, and reports whether one did.
func (i *intruder) ask(to *broker.Broker, as string) bool {
	sub, err := i.nc.SubscribeSync("_INBOX_" + as + "." + to.Region() + ".ask")
	if err != nil {
		i.t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	for range 40 {
		if err := i.nc.PublishRequest(wire.ControlSubject(cluster, to.Region(), "echo", as), "_INBOX_"+as+"."+to.Region()+".ask", nil); err != nil {
			i.t.Fatal(err)
		}
		if _, err := sub.NextMsg(100 * time.Millisecond); err == nil {
			return true
		}
	}
	return false
}

func otherSeed(t *testing.T) string {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return string(seed)
}

// The server that a region dials may be hostile as well: it must not get further either.
func TestHostileListener(t *testing.T) {
	t.Parallel()
	o := &server.Options{ServerName: "trap", DontListen: true, NoSigs: true, NoLog: true}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", l.Addr().(*net.TCPAddr).Port
	l.Close()
	i := newIntruder(t, o)
	us := brokertest.Start(t, broker.Config{Region: "us", Peers: []string{"eu"}, Dial: []string{fmt.Sprintf("nats-leaf://127.0.0.1:%d", o.LeafNode.Port)}})
	fill(t, us, "us", 5)
	brokertest.Until(t, "the link", i.linked)
	i.listen("_LOCAL.>", wire.Subject(cluster, "us"), "pgwaltz.test.*.f")
	pull(t, us, "us", 5)
	fill(t, us, "us", 0)
	for _, s := range i.subjects() {
		t.Errorf("the listener hears %s", s)
	}
	granted := i.attack("us", "ap", "$JS."+broker.Domain("us")+".API.", "$JS.API.")
	for _, g := range granted {
		if !strings.Contains(g, ".CONSUMER.CREATE.PGWALTZ_test_us.") { // these are swept
			t.Errorf("granted: %s", g)
		}
	}
	js, err := us.JS("us")
	if err != nil {
		t.Fatal(err)
	}
	brokertest.Until(t, "the sweep", func() bool {
		s, err := js.Stream(ctx(t), wire.StreamName(cluster, "us"))
		return err == nil && s.CachedInfo().State.Consumers <= 1
	})
	unharmed(t, us, 5, "us")
}

// subjects are those that were heard.
func (i *intruder) subjects() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.heard)
}
