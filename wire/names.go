package wire

import (
	"fmt"
	"strconv"
)

// Subject is where the frames of origin are published: pgwaltz.<cluster>.<origin>.f.
func Subject(cluster, origin string) string { return "pgwaltz." + cluster + "." + origin + ".f" }

// StreamName is the stream that holds them: PGWALTZ_<cluster>_<origin>.
func StreamName(cluster, origin string) string { return "PGWALTZ_" + cluster + "_" + origin }

// ControlSubject carries the requests of asker to region:
// pgwaltz.<cluster>.ctl.<region>.<verb>.<asker>.
func ControlSubject(cluster, region, verb, asker string) string {
	return "pgwaltz." + cluster + ".ctl." + region + "." + verb + "." + asker
}

// Consumers is how many consumers a region may have on a stream at a time.
const Consumers = 8

// ConsumerName names a consumer of region, from 0 to Consumers-1. The names are known before,
// so that a server can let a region make these and no others.
func ConsumerName(region string, n int) string {
	return "pgwaltz-" + region + "-" + strconv.Itoa(n)
}

// AckSubject carries the applied position of peer to origin: pgwaltz.<cluster>.ack.<origin>.<peer>.
func AckSubject(cluster, origin, peer string) string {
	return "pgwaltz." + cluster + ".ack." + origin + "." + peer
}

// CheckName refuses a cluster or region name that cannot stand in subjects, stream names and
// message ids. Allowed are 1 to 32 of a-z, 0-9 and hyphen. The names ctl and ack are taken.
func CheckName(name string) error {
	if len(name) == 0 || len(name) > 32 {
		return fmt.Errorf("check name %q: want 1 to 32 characters", name)
	}
	if name == "ctl" || name == "ack" {
		return fmt.Errorf("check name %q: the word is reserved", name)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("check name %q: want only a-z, 0-9 and hyphens", name)
		}
	}
	return nil
}
