package keys

import "github.com/pgwaltz/pgwaltz/wal"

// State is what a region knows of a key.
type State byte

// The states; of several that a key has, the lowest counts.
const (
	Row    State = 'r' // there is a row
	Parked State = 's' // a change of it is set aside
	Dead   State = 't' // there is a tombstone
	None   State = 'n'
)

// Entry is one line of a list.
type Entry struct {
	Key    string // key text
	State  State
	Values []string // the key's values, of a row
	Note   string   // of a tombstone: its stamp
}

// Source gives the lists of one region.
type Source interface {
	// Region is its name.
	Region() string
	// Tables are the tables that it can list, sorted by name.
	Tables() []wal.RelationName
	// List calls f with the entries of a table in the order of their key texts. A key may come
	// several times, in different states.
	List(table wal.RelationName, f func(Entry) error) error
}
