package broker

import (
	"github.com/nats-io/nats-server/v2/server"

	"github.com/pgwaltz/pgwaltz/wire"
)

// Rights are what one region may say and hear: subjects, or patterns of them. Everything else
// is refused.
type Rights struct{ Publish, Subscribe []string }

// api is the prefix of JetStream's calls: of a region's domain, or of an external server ("").
func api(region string) string {
	if region == "" {
		return "$JS.API."
	}
	return "$JS." + Domain(region) + ".API."
}

// readCalls are the calls by which reader reads the stream of origin: nothing that changes the
// stream, and no consumers but its own few.
func readCalls(cluster, prefix, origin, reader string) []string {
	stream := wire.StreamName(cluster, origin)
	out := []string{prefix + "STREAM.INFO." + stream, prefix + "STREAM.MSG.GET." + stream, prefix + "DIRECT.GET." + stream}
	for n := range wire.Consumers {
		name := wire.ConsumerName(reader, n)
		for _, call := range []string{"CONSUMER.CREATE.", "CONSUMER.DELETE.", "CONSUMER.MSG.NEXT."} {
			out = append(out, prefix+call+stream+"."+name)
		}
	}
	return out
}

// LinkRights are what region may do with the embedded server of another one that it dials: read
// the streams of the others through their gates, acknowledge and ask as itself, and answer. peers are all other
// regions that can be reached there.
func LinkRights(cluster, region string, peers []string) Rights {
	r := Rights{Subscribe: []string{
		inboxes(region), wire.ControlSubject(cluster, region, "*", "*"), wire.AckSubject(cluster, region, "*"), gate(cluster, region, "*") + ">",
	}}
	for _, p := range peers {
		if p == region {
			continue
		}
		r.Publish = append(r.Publish, readCalls(cluster, gate(cluster, p, region), p, region)...)
		r.Publish = append(r.Publish, wire.ControlSubject(cluster, p, "*", region), wire.AckSubject(cluster, p, region), inbox(p, region)+".>")
	}
	return r
}

// ClientRights are what the user of a region needs on an external server that all regions share:
// the same, and its own stream.
func ClientRights(cluster, region string, peers []string) Rights {
	r := Rights{Subscribe: []string{inboxes(region), wire.ControlSubject(cluster, region, "*", "*"), wire.AckSubject(cluster, region, "*")}}
	stream := wire.StreamName(cluster, region)
	for _, call := range []string{"STREAM.CREATE.", "STREAM.UPDATE.", "STREAM.INFO.", "STREAM.PURGE.", "STREAM.MSG.GET.", "DIRECT.GET.", "CONSUMER.NAMES."} {
		r.Publish = append(r.Publish, api("")+call+stream)
	}
	r.Publish = append(r.Publish, api("")+"CONSUMER.DELETE."+stream+".*", wire.Subject(cluster, region))
	r.Publish = append(r.Publish, readCalls(cluster, api(""), region, region)...)
	for _, p := range peers {
		r.Publish = append(r.Publish, readCalls(cluster, api(""), p, region)...)
		r.Publish = append(r.Publish, wire.ControlSubject(cluster, p, "*", region), wire.AckSubject(cluster, p, region), inbox(p, region)+".>")
	}
	return r
}

// permissions turn rights into the server's form. frames of any stream never cross a link as
// plain messages.
func (r Rights) permissions(cluster string) *server.Permissions {
	deny := []string{frames(cluster), localInbox + ".>"}
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: r.Publish, Deny: deny},
		Subscribe: &server.SubjectPermission{Allow: r.Subscribe, Deny: deny},
	}
}

// frames are the subjects of all streams of the cluster. Locally published frames must not
// cross a link as plain messages, nor may a peer publish into a stream.
func frames(cluster string) string { return wire.Subject(cluster, "*") }

// localInbox is where answers of the own embedded server come in; no peer may publish there.
const localInbox = "_LOCAL"

// inbox is where region hears what one other region, and the server that holds the stream of that one,
// answers. Nobody else may speak there: else a peer could put frames of its own among those of
// another region.
func inbox(region, from string) string { return "_INBOX_" + region + "." + from }

// inboxes are all inboxes of a region.
func inboxes(region string) string { return "_INBOX_" + region + ".>" }

// deniedToHub is what the server that region dials may not do to it.
func deniedToHub(cluster, region string) []string {
	return []string{frames(cluster), localInbox + ".>", "$JS.>", "$SYS.>", gate(cluster, region, region) + ">"}
}
