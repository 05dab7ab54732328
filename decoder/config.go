package decoder

import "github.com/pgwaltz/pgwaltz/wal"

const (
	// DefaultMaxPart is the MaxPart of a Config that names none.
	DefaultMaxPart = 1 << 20
	// DefaultMarkerPrefix is the MarkerPrefix of a Config that names none.
	DefaultMarkerPrefix = "pgwaltz.apply"
	// MarkerOrigin stands as Origin of a transaction that was suppressed for its apply
	// marker and carries no replication origin.
	MarkerOrigin = "pgwaltz"

	// ownPrefix begins the prefixes of all logical messages that are ours.
	ownPrefix = "pgwaltz"
)

// Config tells a Decoder what to keep. The zero value is usable.
type Config struct {
	// MaxPart is the size in bytes of buffered changes, estimated as wal.Transaction.Size
	// does, at which a part of the open transaction is given out. 0 means DefaultMaxPart.
	MaxPart int
	// MarkerPrefix is the prefix of the transactional logical message that marks what our
	// own applier wrote. "" means DefaultMarkerPrefix.
	MarkerPrefix string
	// Marker is the content that the marker must have; empty accepts any. A message with
	// the prefix and another content is an ordinary message.
	Marker []byte
	// ForwardOrigins names the replication origins whose transactions are published as if
	// they were local ones. Transactions of all other origins are suppressed.
	ForwardOrigins []string
	// AllOrigins forwards those of every origin.
	AllOrigins bool
	// Key says which columns identify a row: it sets PrimaryKey and Deferrable of rel, and
	// Form of the key's columns, and may append columns that are Computed. It leaves
	// PrimaryKey nil when the table has no key. It is asked once for each Relation
	// message with an identity, on the goroutine that calls Feed, and must not keep rel. An
	// answer that contradicts the WAL's own key columns is not used: the catalog may be
	// ahead of the WAL. An error ends Feed: not to know is not the same as to have no key.
	// May be nil.
	Key func(rel *wal.Relation) error
	// Number says what the columns of a relation are (wal.Column.ID), as they were in the transaction that commits at the position at;
	// table is the OID of the relation. It sets the ID of all or of none, and then returns a position from which on it
	// may know: it is asked again for the first row of a transaction that commits there or behind it. It is asked for each Relation message on the goroutine that calls
	// Feed, and must not keep rel. An error ends Feed. May be nil.
	Number func(rel *wal.Relation, table uint32, at wal.LSN) (again wal.LSN, err error)
	// OnNameless is told of a relation whose old rows the WAL names by other columns than the key,
	// on the goroutine that calls Feed: a partition has another replica identity than its table. A
	// delete is left out then, since nobody can tell of which row, and so is an update where the table
	// has no key; another update counts as one that leaves the key alone. May be nil.
	OnNameless func(rel *wal.Relation, op wal.Op)
	// OnMessage gets the non-transactional logical messages with a prefix of ours, on the
	// goroutine that calls Feed; it owns them. They belong to no transaction and come
	// again after a reconnect as the server likes. May be nil.
	OnMessage func(wal.Message)
}
