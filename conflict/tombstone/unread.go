package tombstone

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Unread is a row of a table without stamp columns that this region may have written in WAL that nobody reads: a
// transaction behind the horizon wrote it.
type Unread struct {
	Key    string
	Writer uint32 // the id of that transaction, or of a part of it
	// Wrote is when this region wrote the row, as it counts for everybody who asks the server (Tracked). Committed is the same without regard
	// to since when that counts: a server that came to be by pg_upgrade, or that has counted anew, knows it of what was written before. Ended is when the
	// transaction ended, whoever it was. MinMicros: the server does not know it.
	Wrote, Committed, Ended wal.Micros
	Applied                 bool // the server knows that an applier of ours wrote it
}

// Gap is what is known of WAL that is not read, and what is written down of the rows that were written in it.
type Gap struct {
	// End is where the WAL is read again. What is noted of a key from there on is later than what was written before.
	End wal.LSN
	// Least is the time of rows of which nothing else is known: an entry that is gone was older (Collect). All that another region has written
	// since, and that may be on its way, stays above it.
	Least wal.Micros
	// Floor is a time that rows of it which were hardly read are above where this region may have published something of them that it did not
	// merge; MinMicros where all of that is merged. Rows that were mostly read are what was published: and where nobody could tell that the server was restored,
	// what it has lost of them lies below the floor, and lives at the peers.
	Floor wal.Micros
	// Read is the newest transaction of this region that is known to be read; 0 where none is. Rows of later ones were hardly read, and those of
	// earlier ones mostly were.
	Read uint32
	// Tracked: the server tells the times of transactions. So nothing was noted of its own ones.
	Tracked bool
	// Newest is the time of the newest transaction of this region that is known to be read, MinMicros where none is. Where the server does
	// not tell the times of earlier ones any more, it is above what a row has replaced.
	Newest wal.Micros
	Region string
	// Away says that it is no gap: the changes of a table were left out. See judgeAway.
	Away *Away
}

// Noted is an entry as Regain finds it.
type Noted struct {
	Entry
	LSN    wal.LSN
	Writer uint32
	Ended  wal.Micros
	Own    bool // this region wrote the row that it was noted for
}

// Regained is the entry that a row gets.
type Regained struct {
	Key   string
	Next  uint32
	At    wal.Micros
	Plain bool // nothing has to be stamped from it
}

// Judge says what is written down of a row that may have been written in the gap; false for nothing. The row gets a time that is above what
// it has replaced, which is what every other region may still have: that of its commit where the server knows it, and otherwise one just
// above what was noted. A write of another region that was later than what was replaced stays above it then.
//
// A row that was read from the WAL, or applied, behind the horizon looks the same when nothing tells it apart. It gets a time just
// above its own, in every region, and loses nothing by it. Where two regions have a gap, one of them may so raise a row that
// the other one has changed; therefore a row that was hardly read is raised by more.
func (g *Gap) Judge(u Unread, e *Noted) (r Regained, ok bool) {
	if g.Away != nil {
		return g.judgeAway(u, e)
	}
	r = Regained{Key: u.Key, At: wal.MinMicros}
	by := wal.Micros(0)
	if g.Read == 0 || later(u.Writer, g.Read) {
		r.At = g.Floor
		if e == nil || later(u.Writer, e.Writer) {
			by = 1
		}
	}
	switch {
	case u.Applied:
		return r, false
	case e == nil && u.Wrote != wal.MinMicros:
		return r, false // who asks for the row's time asks the server
	case e == nil:
		r.At, r.Plain = max(g.Least, r.At)+by, true
		switch {
		case u.Committed != wal.MinMicros:
			r.At = max(g.Least, u.Committed)
		case g.Tracked && u.Ended == wal.MinMicros && by > 0:
			r.At = max(r.At, g.Newest+by)
		}
		return r, true
	case e.LSN >= g.mark(), e.Writer == u.Writer, u.Ended != wal.MinMicros && e.Ended == u.Ended:
		// It was noted since, or with the row.
		return r, false
	case e.Plain && u.Wrote > e.At:
		return r, false
	}
	above := e.At
	if !e.Live {
		above = e.Stamp.UpdatedAt
	}
	if above < wal.MaxMicros-2 {
		above++
	}
	r.Next, r.Plain = e.Next, e.Plain
	if wrote := max(u.Wrote, u.Committed); wrote != wal.MinMicros {
		r.At = max(wrote, above)
	} else {
		r.At = max(r.At, above) + by
	}
	return r, true
}

// later reports whether a transaction began to write behind another one, by their ids.
func later(a, b uint32) bool { return int32(a-b) > 0 }

// mark is the position of the entries: below everything that is read behind the gap.
func (g *Gap) mark() wal.LSN { return max(g.End, 1) - 1 }

// ErrRaced says that somebody else noted one of the keys meanwhile. The transaction has to be tried again.
var ErrRaced = errors.New("an entry was written by another transaction")

// foundSQL is FindSQL with what tells an entry's writer; the expression gives when a transaction ended.
const foundSQL = `select t.key, t.generation, t.version, t.updated_at, t.live, t.plain, (t.lsn - '0/0'::pg_lsn)::int8, t.xmin::text::int8, coalesce(t.origin, ''), %s
from (select k from unnest($2::text[]) as u(k) order by k collate "C") as u
cross join lateral (select *, xmin from pgwaltz.tombstone t where t.relation = $1 and t.key = u.k%s) as t`

// plainSQL is PlainSQL, and keeps what it writes from being collected for as long as any other entry: relation, arrays of key and of time in
// microseconds, position, region.
const plainSQL = `insert into pgwaltz.tombstone as t (relation, key, generation, version, updated_at, live, origin, lsn, plain)
select $1, k, -1, -9223372036854775808, at, true, $5, $4::text::pg_lsn, true from unnest($2::text[], $3::int8[]) as u(k, at) order by k
on conflict (relation, key) do update set updated_at = excluded.updated_at, lsn = excluded.lsn, deleted_at = pg_catalog.now() where t.plain`

// EndedSQL is an expression over a row t: when the transaction that wrote it ended, in microseconds; NULL where the server does
// not know.
func (g *Gap) EndedSQL() string {
	if !g.Tracked {
		return "null::int8"
	}
	return `(extract(epoch from pg_catalog.pg_xact_commit_timestamp(t.xmin)) * 1000000)::int8`
}

// CommittedSQL is an expression over a row t: when this region committed it, in microseconds; NULL where an applier or another origin did, or the server
// does not know.
func (g *Gap) CommittedSQL() string {
	if !g.Tracked {
		return "null::int8"
	}
	return `(select (extract(epoch from o."timestamp") * 1000000)::int8 from pg_catalog.pg_xact_commit_timestamp_origin(t.xmin) as o where o.roident = 0)`
}

// AppliedSQL is an expression over a row t: an applier of ours wrote it, with a replication origin.
func (g *Gap) AppliedSQL() string {
	if !g.Tracked {
		return "false"
	}
	return `coalesce((select pg_catalog.starts_with(n.roname, 'pgwaltz') from pg_catalog.pg_xact_commit_timestamp_origin(t.xmin) as o
  join pg_catalog.pg_replication_origin as n on n.roident = o.roident), false)`
}

// Regain notes rows of one relation that may have been written in a gap, in the caller's transaction, and returns how many it noted. It
// locks the entries and not the rows: an applier that changes a row meanwhile writes its entry behind this one, or has
// written it and is left alone. Done again for the same gap it changes nothing. What it notes is put into the index
// before the commit; so is it when this is done again, with the same words.
//
// Errors: ErrRaced.
func (g *Gap) Regain(ctx context.Context, q Querier, x *Index, rel wal.RelationName, rows []Unread) (noted int, high wal.Micros, err error) {
	high = wal.MinMicros
	if len(rows) == 0 {
		return 0, high, nil
	}
	entries, err := g.find(ctx, q, rel, rows, " for update")
	if err != nil {
		return 0, high, err
	}
	var plain, others []Regained
	for _, u := range rows {
		e := entries[u.Key]
		switch r, ok := g.Judge(u, e); {
		case !ok:
		case g.Away != nil && e != nil && e.LSN >= g.mark():
			return 0, high, fmt.Errorf("note rows of %s: %w", rel, ErrRaced) // the position has to lie behind that
		case r.Plain:
			plain, high = append(plain, r), max(high, r.At)
		default:
			others = append(others, r)
		}
	}
	if noted, err = g.writePlain(ctx, q, rel, plain); err != nil {
		return 0, high, err
	}
	if err := g.write(ctx, q, rel, others); err != nil {
		return 0, high, err
	}
	for _, r := range others {
		it := conflict.Item{LSN: g.mark(), Next: r.Next, Live: true, At: r.At}
		if g.Away != nil {
			x.Hold(g.Away.Holder, rel, r.Key, it)
			continue
		}
		x.Put(rel, []byte(r.Key), it)
	}
	return noted + len(others), high, nil
}

// find reads the entries of rows, and locks them where lock says so.
func (g *Gap) find(ctx context.Context, q Querier, rel wal.RelationName, rows []Unread, lock string) (map[string]*Noted, error) {
	keys := make([]string, len(rows))
	for i, u := range rows {
		keys[i] = u.Key
	}
	found, err := q.Query(ctx, fmt.Sprintf(foundSQL, g.EndedSQL(), lock), RelationText(rel), keys)
	if err != nil {
		return nil, fmt.Errorf("find entries of %s: %w", rel, err)
	}
	defer found.Close()
	out := map[string]*Noted{}
	for found.Next() {
		var key, origin string
		var gen, ver, at, lsn, writer int64
		var live, plain bool
		var ended *int64
		if err := found.Scan(&key, &gen, &ver, &at, &live, &plain, &lsn, &writer, &origin, &ended); err != nil {
			return nil, fmt.Errorf("find entries of %s: %w", rel, err)
		}
		n := &Noted{Entry: EntryOf(key, gen, ver, at, live, plain), LSN: wal.LSN(lsn), Writer: uint32(writer), Ended: wal.MinMicros, Own: origin == g.Region}
		if ended != nil {
			n.Ended = wal.Micros(*ended)
		}
		out[key] = n
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("find entries of %s: %w", rel, err)
	}
	return out, nil
}

// writePlain writes entries from which nothing is stamped, and returns how many: a key that an applier has noted meanwhile is
// left to that.
func (g *Gap) writePlain(ctx context.Context, q Querier, rel wal.RelationName, rows []Regained) (int, error) {
	if len(rows) == 0 {
		return 0, nil
	}
	keys, ats := make([]string, len(rows)), make([]int64, len(rows))
	for i, r := range rows {
		keys[i], ats[i] = r.Key, int64(r.At)
	}
	tag, err := q.Exec(ctx, plainSQL, RelationText(rel), keys, ats, g.mark().String(), g.Region)
	if err != nil {
		return 0, fmt.Errorf("note rows of %s: %w", rel, err)
	}
	return int(tag.RowsAffected()), nil
}

// write writes the other entries, which are locked.
func (g *Gap) write(ctx context.Context, q Querier, rel wal.RelationName, rows []Regained) error {
	n := len(rows)
	if n == 0 {
		return nil
	}
	rels, keys, lsns := make([]string, n), make([]string, n), make([]string, n)
	nexts, vers, ats := make([]int64, n), make([]int64, n), make([]int64, n)
	live, plain := make([]bool, n), make([]bool, n)
	for i, r := range rows {
		rels[i], keys[i], lsns[i] = RelationText(rel), r.Key, g.mark().String()
		nexts[i], vers[i], ats[i], live[i] = int64(r.Next), int64(wal.NullVersion), int64(r.At), true
	}
	found, err := q.Query(ctx, WriteSQL, rels, keys, nexts, vers, ats, live, lsns, plain, g.Region, []string{})
	if err != nil {
		return fmt.Errorf("note rows of %s: %w", rel, err)
	}
	raced, err := pgx.CollectExactlyOneRow(found, pgx.RowTo[int64])
	if err != nil {
		return fmt.Errorf("note rows of %s: %w", rel, err)
	}
	if raced != 0 {
		return fmt.Errorf("note rows of %s: %w", rel, ErrRaced)
	}
	return nil
}

// ParseWriter reads a transaction id as the server prints it.
func ParseWriter(text []byte) (uint32, error) {
	n, err := strconv.ParseUint(string(text), 10, 32)
	return uint32(n), err
}
