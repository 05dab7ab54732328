package wire

import "fmt"

// Subject is where the frames of origin are published: pgwaltz.<cluster>.<origin>.f.
func Subject(cluster, origin string) string { return "pgwaltz." + cluster + "." + origin + ".f" }

// StreamName is the stream that holds them: PGWALTZ_<cluster>_<origin>.
func StreamName(cluster, origin string) string { return "PGWALTZ_" + cluster + "_" + origin }

// ControlSubject carries requests to region: pgwaltz.<cluster>.ctl.<region>.<verb>.
func ControlSubject(cluster, region, verb string) string {
	return "pgwaltz." + cluster + ".ctl." + region + "." + verb
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
