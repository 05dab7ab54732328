package broker_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
	"github.com/pgwaltz/pgwaltz/wire"
)

// What a region may ask is answered to it, and nowhere else.
func TestAnswersGoNowhereElse(t *testing.T) {
	t.Parallel()
	eu, acks, asked := hub(t, nil)
	i := intrude(t, eu.LinkAddr(), func(r *server.RemoteLeafOpts) { r.URLs[0].User = url.User("us") })
	brokertest.Until(t, "the intruder's link", i.linked)
	stream := wire.StreamName(cluster, "eu")
	api := gate("eu", "us")
	inboxes, err := eu.Conn().SubscribeSync("_INBOX_eu.ap.>")
	if err != nil {
		t.Fatal(err)
	}
	local, err := eu.Conn().SubscribeSync("_LOCAL.x")
	if err != nil {
		t.Fatal(err)
	}
	if err := eu.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	say := func(subject, reply, data string) {
		if err := i.nc.PublishRequest(subject, reply, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	consumer := wire.ConsumerName("us", 1)
	pushed := wire.ConsumerName("us", 2)
	replies := []string{wire.Subject(cluster, "eu"), wire.AckSubject(cluster, "eu", "ap"), wire.ControlSubject(cluster, "eu", "echo", "ap"), "_INBOX_eu.ap.x", "_LOCAL.x",
		"$JS.API.STREAM.PURGE." + stream, "$JS.API.STREAM.DELETE." + stream, "$JS." + broker.Domain("eu") + ".API.STREAM.DELETE." + stream}
	in, err := i.nc.SubscribeSync("_INBOX_us.eu.x")
	if err != nil {
		t.Fatal(err)
	}
	brokertest.Until(t, "an answer that is allowed", func() bool {
		say(api+"STREAM.INFO."+stream, "_INBOX_us.eu.x", "")
		_, err := in.NextMsg(200 * time.Millisecond)
		return err == nil
	})
	create := func(name, extra string) string {
		return fmt.Sprintf(`{"stream_name":%q,"config":{"name":%q,"deliver_policy":"all","ack_policy":"none","mem_storage":true,"inactive_threshold":600000000000%s}}`, stream, name, extra)
	}
	for _, r := range replies {
		for _, verb := range []string{"echo", "ping"} {
			say(wire.ControlSubject(cluster, "eu", verb, "us"), r, "x")
		}
		say(api+"STREAM.INFO."+stream, r, "")
		say(api+"STREAM.MSG.GET."+stream, r, `{"seq":1}`)
		say(api+"DIRECT.GET."+stream, r, `{"seq":1}`)
		say(api+"CONSUMER.CREATE."+stream+"."+consumer, r, create(consumer, ""))
		say(api+"CONSUMER.MSG.NEXT."+stream+"."+consumer, r, `{"batch":1}`)
		say(api+"CONSUMER.MSG.NEXT."+stream+"."+consumer, r, `{"batch":9,"no_wait":true}`)
		say(api+"CONSUMER.CREATE."+stream+"."+pushed, "_INBOX_us.eu.x", create(pushed, fmt.Sprintf(`,"deliver_subject":%q`, r)))
		for {
			m, err := in.NextMsg(200 * time.Millisecond)
			if err != nil {
				break
			}
			if strings.Contains(string(m.Data), `"deliver_subject"`) {
				t.Errorf("a consumer delivers to %s: %s", r, m.Data)
			}
		}
		say(api+"CONSUMER.DELETE."+stream+"."+consumer, r, "")
		say(api+"CONSUMER.DELETE."+stream+"."+pushed, r, "")
	}
	brokertest.Until(t, "an answer that is allowed", func() bool {
		say(api+"STREAM.INFO."+stream, "_INBOX_us.eu.x", "")
		_, err := in.NextMsg(200 * time.Millisecond)
		return err == nil
	})
	if got := acks(); len(got) != 0 {
		t.Errorf("acknowledgements of %v were taken", got)
	}
	if got := asked(); len(got) != 0 {
		t.Errorf("requests of %v were answered", got)
	}
	if m, err := inboxes.NextMsg(200 * time.Millisecond); err == nil {
		t.Errorf("heard in an inbox of ap: %s %.100s", m.Subject, m.Data)
	}
	if m, err := local.NextMsg(200 * time.Millisecond); err == nil {
		t.Errorf("heard in a local inbox: %s %.100s", m.Subject, m.Data)
	}
	unharmed(t, eu, 5, "us")
}
