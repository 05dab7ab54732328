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

// gate is how region as asks region victim.
func gate(victim, as string) string { return "pgwaltz." + cluster + ".api." + victim + "." + as + "." }

// attack says everything to the region victim as somebody who has the credentials of region as, and
// returns what was answered other than by an error.
func (i *intruder) attack(victim, as, other string) []string {
	i.t.Helper()
	stream := wire.StreamName(cluster, victim)
	var mu sync.Mutex
	var answered []string
	inbox := nats.NewInbox()
	through := "_INBOX_" + as + "." + victim + ".x"
	for _, in := range []string{inbox, through} { // the second one is let through
		if _, err := i.nc.Subscribe(in+".>", func(m *nats.Msg) {
			mu.Lock()
			defer mu.Unlock()
			if !strings.Contains(string(m.Data), `"error"`) && m.Header.Get("Status") == "" {
				answered = append(answered, m.Subject)
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
	for _, prefix := range []string{"$JS." + broker.Domain(victim) + ".API.", "$JS.API.", gate(victim, as), gate(victim, other), gate(victim, victim)} {
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
	in := "_INBOX_" + as + "." + victim + ".allowed"
	sub, err := i.nc.SubscribeSync(in)
	if err != nil {
		i.t.Fatal(err)
	}
	brokertest.Until(i.t, "an answer that is allowed", func() bool {
		publish(gate(victim, as)+"STREAM.INFO."+stream, in, "")
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
