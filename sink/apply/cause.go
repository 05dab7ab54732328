package apply

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// cause is what an error of an apply transaction is about, and so what follows from it.
type cause uint8

const (
	// causeRun: the server, the session or this program. The run ends; the next one begins
	// at the checkpoint.
	causeRun cause = iota
	// causeRow: what a row holds, a constraint, a trigger, or the definition of its table.
	// Setting the change aside lets everything else flow.
	causeRow
	// causeAgain: the same statements may succeed when they are tried again.
	causeAgain
	// causePlans: a prepared statement does not fit the tables any more.
	causePlans
	// causeServer: the server refuses, for want of disk, memory or rights, or because of another
	// server that a trigger writes to. It may pass, and it may be about one table only: when it
	// does not pass, the change is set aside, which fails as well where the whole server refuses.
	causeServer
)

// causeOf reads the cause of an error. The list names what is not about a row; every other
// SQLSTATE is, because rows, triggers and constraints may raise any.
func causeOf(err error) cause {
	var schema *schemaError
	var stamp *stampError
	var value *valueError
	var clash *clashError
	if errors.As(err, &schema) || errors.As(err, &stamp) || errors.As(err, &value) || errors.As(err, &clash) {
		return causeRow
	}
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return causeRun
	}
	if pe.SeverityUnlocalized == "FATAL" || pe.SeverityUnlocalized == "PANIC" {
		return causeRun // the session is gone
	}
	switch pe.Code {
	case "40001", "40P01", "55P03", "57014":
		return causeAgain
	case "0A000":
		if pe.Routine == "RevalidateCachedQuery" {
			return causePlans
		}
		return causeRow
	case "26000":
		return causePlans // somebody dropped our prepared statements
	}
	if pe.Routine == "exec_stmt_raise" {
		return causeRow // RAISE in a trigger, whatever state it chose
	}
	if len(pe.Code) != 5 {
		return causeRun
	}
	if beside := (*sideError)(nil); errors.As(err, &beside) && (pe.Code[:2] == "42" || pe.Code[:2] == "3F") {
		return causeRun // setup or a grant is missing; it is not about a row
	}
	// What has a context was raised by a function or a row, such as VACUUM in a trigger.
	ours := pe.Where == ""
	switch pe.Code[:2] {
	case "3B": // savepoints: this program's
		if ours {
			return causeRun
		}
	case "25":
		if pe.Code == "25006" {
			return causeServer
		}
		if ours {
			return causeRun // the transaction has failed, and this program did not notice
		}
	case "08", // another server, which a trigger or a foreign table needs
		"28", // its password
		"53", // disk, memory, files
		"57", // an operator
		"58", // files of the server
		"F0", // the server's configuration file
		"72": // snapshot too old
		if pe.Code == "58P01" {
			return causeRow // a missing file of one table or of one function's library
		}
		return causeServer
	}
	return causeRow
}

// lockLost reports whether somebody else holds a lock: it was waited for long enough, or in a circle.
func lockLost(err error) bool {
	state := sqlState(err)
	return state == "55P03" || state == "40P01"
}

// sideError is an error of a table of schema pgwaltz.
type sideError struct{ error }

func (e *sideError) Unwrap() error { return e.error }

// Hint says what to do about it.
func (e *sideError) Hint() string {
	return "run pgwaltz check; it names what is missing in schema pgwaltz"
}

// side marks an error of a table of schema pgwaltz.
func side(err error) error {
	if err == nil {
		return nil
	}
	return &sideError{err}
}

// rowError reports whether setting the change aside lets everything else flow.
func rowError(err error) bool { return err != nil && causeOf(err) == causeRow }

// parkable reports whether a change that failed by itself is set aside: its own error, or one
// that did not go away when it was tried again.
func parkable(err error) bool {
	switch causeOf(err) {
	case causeRow, causeAgain, causePlans, causeServer:
		return true
	}
	return errors.Is(err, errRace)
}

// sqlState returns the SQLSTATE of an error, "" if it has none.
func sqlState(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	var se *schemaError
	if errors.As(err, &se) {
		return se.code
	}
	var clash *clashError
	if errors.As(err, &clash) {
		return "23505"
	}
	return ""
}

// parkState is the SQLSTATE under which a change is set aside.
func parkState(err error) string {
	if s := sqlState(err); s != "" {
		return s
	}
	var se *stampError
	if errors.As(err, &se) {
		return stateOtherStamp
	}
	var ve *valueError
	if errors.As(err, &ve) {
		return stateOtherValue
	}
	if errors.Is(err, errRace) {
		return "40001"
	}
	return "XX000"
}

// stateOtherStamp is the SQLSTATE of changes that are stored with another stamp than they came with: a trigger rewrites it, or
// their origin reads it from other columns.
const stateOtherStamp = "PW001"

// stateOtherValue is the SQLSTATE of changes of which a column stores something else.
const stateOtherValue = "PW002"

// publicError is an error without row values: PostgreSQL's message and detail may quote them.
func publicError(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		s := "SQLSTATE " + pe.Code
		if pe.TableName != "" {
			s += " in " + pe.SchemaName + "." + pe.TableName
		}
		if pe.ConstraintName != "" {
			s += ", constraint " + pe.ConstraintName
		}
		return s
	}
	return err.Error()
}
