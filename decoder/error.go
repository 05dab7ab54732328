package decoder

import (
	"errors"
	"fmt"

	"github.com/pgwaltz/pgwaltz/wal"
)

// Classes of decode errors, for errors.Is. All are fatal for the connection.
var (
	// ErrUnknownMessage is a message type that pgoutput version 1 does not have.
	ErrUnknownMessage = errors.New("unknown message type")
	// ErrMalformed is a message whose bytes do not parse.
	ErrMalformed = errors.New("malformed message")
	// ErrOutOfOrder is a well-formed message that may not come at this point.
	ErrOutOfOrder = errors.New("message out of order")
	// ErrUnknownRelation is a change of a relation that was not described on this connection.
	ErrUnknownRelation = errors.New("unknown relation")
	// ErrLateMarker is an apply marker or an origin behind a part that was already given out.
	ErrLateMarker = errors.New("echo found after a part of it was given out")
)

// Error is a message that could not be decoded. It never holds row contents.
type Error struct {
	LSN  wal.LSN // position that the message was received with
	Type byte    // the message's type byte, 0 for an empty message
	Err  error
}

// Error names the message, the position and the cause.
func (e *Error) Error() string {
	return fmt.Sprintf("decode %s message at %s: %v", typeName(e.Type), e.LSN, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint tells the operator what to do.
func (e *Error) Hint() string {
	switch {
	case errors.Is(e.Err, ErrUnknownMessage):
		return "the slot must be read by pgoutput with proto_version 1, streaming and two_phase off"
	case errors.Is(e.Err, ErrUnknownRelation):
		return "the relation was described on an earlier connection; reconnect the slot reader"
	case errors.Is(e.Err, ErrLateMarker):
		return "the applying session must emit the marker as the first statement of its transaction; " +
			"or grant it the replication origin functions"
	case errors.Is(e.Err, ErrOutOfOrder):
		return "messages were lost or mixed on the connection; reconnect, and report it when it comes again"
	}
	return "the bytes are not what this PostgreSQL version is known to send; " +
		"check what stands between sidecar and server, and report it when it comes again"
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

func outOfOrder(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrOutOfOrder}, args...)...)
}

// typeName names a message type, also those that are only known to be refused.
func typeName(t byte) string {
	switch t {
	case 0:
		return "empty"
	case 'B':
		return "Begin"
	case 'C':
		return "Commit"
	case 'O':
		return "Origin"
	case 'R':
		return "Relation"
	case 'Y':
		return "Type"
	case 'I':
		return "Insert"
	case 'U':
		return "Update"
	case 'D':
		return "Delete"
	case 'T':
		return "Truncate"
	case 'M':
		return "Message"
	case 'S':
		return "StreamStart"
	case 'E':
		return "StreamStop"
	case 'c':
		return "StreamCommit"
	case 'A':
		return "StreamAbort"
	case 'b':
		return "BeginPrepare"
	case 'P':
		return "Prepare"
	case 'K':
		return "CommitPrepared"
	case 'r':
		return "RollbackPrepared"
	case 'p':
		return "StreamPrepare"
	}
	return fmt.Sprintf("%q", t)
}

func unknownRelation(oid uint32) error {
	return fmt.Errorf("%w: oid %d", ErrUnknownRelation, oid)
}
