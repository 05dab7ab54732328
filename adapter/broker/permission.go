package broker

import (
	"github.com/nats-io/nats-server/v2/server"

	"github.com/pgwaltz/pgwaltz/wire"
)

// adminCalls are the JetStream calls, of any domain, that change or copy a stream. A peer
// needs none of them: it reads, by info, get and pull.
func adminCalls() []string {
	calls := make([]string, 0, 16)
	for _, c := range []string{
		"STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.PURGE", "STREAM.RESTORE", "STREAM.SNAPSHOT",
		"STREAM.MSG.DELETE", "STREAM.PEER", "STREAM.LEADER", "SERVER", "META", "ACCOUNT", "CONSUMER.DURABLE", "CONSUMER.LEADER",
	} {
		calls = append(calls, "$JS.*.API."+c+".>")
	}
	return calls
}

// frames are the subjects of all streams of the cluster. Locally published frames must not
// cross a link as plain messages, nor may a peer publish into a stream.
func frames(cluster string) string { return wire.Subject(cluster, "*") }

// linkPermissions are what a peer that links to our listener may do here.
func linkPermissions(cluster string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Deny: append(adminCalls(), frames(cluster))},
		Subscribe: &server.SubjectPermission{Deny: []string{frames(cluster)}},
	}
}
