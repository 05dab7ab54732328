package sidecar

import (
	"context"
	"time"

	"github.com/pgwaltz/pgwaltz/source/complete"
	"github.com/pgwaltz/pgwaltz/wal"
)

// catalogTimeout bounds one look into the catalog for the decoder.
const catalogTimeout = 20 * time.Second

// completer asks in a session that nobody else uses: what the outbound pipe has to know must
// not wait behind the status.
func (s *Sidecar) completer() *complete.Completer { return complete.New(s.catalog.do) }

// describe says what identifies the rows of a relation that the decoder has read of. An error
// ends the pipe, which is opened again and asks again.
func (s *Sidecar) describe(rel *wal.Relation) error {
	ctx, cancel := context.WithTimeout(context.Background(), catalogTimeout)
	defer cancel()
	return s.completer().Describe(ctx, rel)
}
