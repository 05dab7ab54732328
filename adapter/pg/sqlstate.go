package pg

import (
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// Code returns the SQLSTATE in err's chain, "" where there is none.
func Code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
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

// Passes reports whether the server has refused a statement for a reason that has nothing to do with it, and that passes while the session
// stays: a serialization failure, a deadlock, a limit of time, a lack of something, a transaction that may only read.
func Passes(err error) bool {
	if Disconnected(err) || errors.As(err, new(*ConnectError)) {
		return false
	}
	switch code := Code(err); {
	case code == "25006", code == "55P03", code == "57014":
		return true
	default:
		return len(code) == 5 && (code[:2] == "40" || code[:2] == "53")
	}
}
