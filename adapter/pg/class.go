package pg

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// Class says what to do about an error of the server or of the connection.
type Class int

const (
	// None is no error.
	None Class = iota
	// Retry heals by itself: try the whole transaction again, after a pause, on a new
	// connection if Disconnected says so.
	Retry
	// Unique is a violated unique or exclusion constraint (23505, 23P01): a merge question.
	Unique
	// Human needs somebody: a missing table, column or privilege, a value that does not
	// fit. It is tried again slowly; a single change of that kind is parked.
	Human
	// Fatal is wrong configuration: login, database, protocol.
	Fatal
	// Canceled is our own doing: the context ended.
	Canceled
)

// String names the class for logs.
func (c Class) String() string {
	return [...]string{"none", "retry", "unique", "human", "fatal", "canceled"}[c]
}

// Code returns the SQLSTATE in err's chain, "" where there is none.
func Code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Classify sorts an error by its SQLSTATE; what has none is the connection's, and retried.
func Classify(err error) Class {
	if err == nil {
		return None
	}
	if code := Code(err); len(code) == 5 {
		var e *pgconn.PgError
		if errors.As(err, &e) && e.Routine == "RevalidateCachedQuery" {
			return Retry // "cached plan must not change result type": the table was altered
		}
		return classifyCode(code)
	}
	var cfg *ConfigError
	switch {
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.As(err, &cfg):
		return Fatal
	case Disconnected(err), errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		return Retry
	}
	return Human
}

func classifyCode(code string) Class {
	switch code {
	case "23505", "23P01":
		return Unique
	case "55P03", "55006", "25006", "57014", "26000":
		// 25006: the server is read-only for now. 26000: a prepared statement was lost.
		return Retry
	case "3D000":
		return Fatal
	}
	switch code[:2] {
	case "08":
		if code == "08P01" { // protocol violation: the same bytes fail again
			return Fatal
		}
		return Retry
	case "40", "53", "57", "58":
		return Retry
	case "28":
		return Fatal
	}
	return Human
}

// Disconnected reports whether the connection is gone, so that only a new one helps.
func Disconnected(err error) bool {
	if err == nil {
		return false
	}
	if code := Code(err); code != "" {
		return code[:2] == "08" || code == "57P01" || code == "57P02" || code == "57P03" || code == "57P05"
	}
	var network net.Error
	var connect *pgconn.ConnectError
	var ours *ConnectError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, &network) || errors.As(err, &connect) || errors.As(err, &ours) || pgconn.SafeToRetry(err)
}
