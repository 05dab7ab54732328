package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// PeerSchema creates the table of the peers' databases; the schema pgwaltz must exist. It may be run again.
//
// heard is the life that a peer was heard with last. life is the one that has everything of this region, or
// gets it by copies that were asked for: where the two differ, the peer has another database than before, and
// lacks what its former one had written and this region has of it. "" is no life of any; anyLife as life is
// whichever the peer is heard with next. removed: the region is no peer any more, and what follows from that was noted (Removed).
const PeerSchema = `create table if not exists pgwaltz.peer (
  region  text primary key,
  life    text not null,
  heard   text not null,
  removed boolean not null default false
)`

// anyLife stands for the database of a peer that was provided for before its life was heard of.
const anyLife = "any"

// Life names a database among all that were ever given the region's name. It is no secret, and the token
// cannot be told from it. A dump that holds schema pgwaltz keeps it, and so does a restore from files.
func Life(token []byte) string {
	sum := sha256.Sum256(append([]byte("pgwaltz life "), token...))
	return hex.EncodeToString(sum[:16])
}

// Conn runs statements; *pgx.Conn and pgx.Tx are Conns.
type Conn interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// IsLife reports whether a peer's word can be a life.
func IsLife(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 16
}

// Hear notes the life that a peer was heard with. It reports whether the peer has another database than
// before, for which nothing was asked yet. The first life of a peer is no other one. A life that is noted
// already writes nothing.
func Hear(ctx context.Context, c Conn, peer, life string) (other bool, err error) {
	err = c.QueryRow(ctx, `with noted as (
  insert into pgwaltz.peer as p (region, life, heard)
  select $1, $2, $2 where not exists (select from pgwaltz.peer where region = $1 and heard = $2)
  on conflict (region) do update set heard = excluded.heard, life = case p.life when $3 then excluded.heard else p.life end
)
select coalesce((select life not in ($2, $3) from pgwaltz.peer where region = $1), false)`, peer, life, anyLife).Scan(&other)
	if err != nil {
		return false, fmt.Errorf("note the database of peer %s: %w", peer, err)
	}
	return other, nil
}

// Lacks notes that a peer lacks rows of this region, and that nothing was asked for it.
func Lacks(ctx context.Context, c Conn, peer string) error {
	if _, err := c.Exec(ctx, `insert into pgwaltz.peer (region, life, heard) values ($1, '', '') on conflict (region) do update set life = ''`, peer); err != nil {
		return fmt.Errorf("note what peer %s lacks: %w", peer, err)
	}
	return nil
}

// Provided notes that all tables are asked to be copied, for whatever database each peer was heard with last, or, where
// it was never heard, will be heard with first.
func Provided(ctx context.Context, c Conn) error {
	if _, err := c.Exec(ctx, `update pgwaltz.peer set life = case heard when '' then $1 else heard end where life <> heard or life = ''`, anyLife); err != nil {
		return fmt.Errorf("note the databases of peers: %w", err)
	}
	return nil
}

// Removed holds what is noted against the peers of the configuration, and returns the regions that are no peers since it was called last. One that
// was never heard, as by a name that was mistaken, is none of them. What each of the others has applied of such a region may differ, and nobody
// sends it any more. So where there are any, it notes that every peer lacks rows of this region, which has what it has applied.
func Removed(ctx context.Context, c *pgx.Conn, peers []string) (regions []string, err error) {
	err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `update pgwaltz.peer set removed = false where removed and region = any($1)`, peers); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `update pgwaltz.peer set removed = true where not removed and heard <> '' and region <> all($1) returning region`, peers)
		if err != nil {
			return err
		}
		if regions, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || len(regions) == 0 {
			return err
		}
		for _, p := range peers {
			if err := Lacks(ctx, tx, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("note which regions are no peers any more: %w", err)
	}
	return regions, nil
}
