package broker_test

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
		if !strings.HasPrefix(s, "pgwaltz.test.ctl.us.") && !strings.HasPrefix(s, gate("us", "")) && !strings.HasPrefix(s, "_INBOX_us.") {
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
		if got := i.attack(victim, "us", other); len(got) > 0 {
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
	js, err := jetstream.NewWithAPIPrefix(nc, gate("eu", "us"))
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
	for _, g := range i.attack("us", "eu", "ap") {
		t.Errorf("granted: %s", g)
	}
	unharmed(t, us, 5, "us")
}

// subjects are those that were heard.
func (i *intruder) subjects() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.heard)
}
