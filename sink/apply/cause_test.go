package apply

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestCauseOf(t *testing.T) {
	t.Parallel()
	state := func(code string) error {
		return fmt.Errorf("write: %w", &pgconn.PgError{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code})
	}
	for name, c := range map[string]struct {
		err  error
		want cause
	}{
		"a network error":             {io.ErrUnexpectedEOF, causeRun},
		"the table is missing here":   {&schemaError{code: "42P01"}, causeRow},
		"a trigger rewrites stamps":   {&stampError{}, causeRow},
		"unique":                      {state("23505"), causeRow},
		"a class nobody thought of":   {state("AC001"), causeRow},
		"no privilege":                {state("42501"), causeRow},
		"untranslatable":              {state("22P05"), causeRow},
		"internal error":              {state("XX000"), causeRow},
		"a missing library":           {state("58P01"), causeRow},
		"a broken disk":               {state("58030"), causeServer},
		"a corrupted index":           {state("XX002"), causeRow},
		"disk full":                   {state("53100"), causeServer},
		"a file that is too large":    {state("53400"), causeServer},
		"read only":                   {state("25006"), causeServer},
		"another server is away":      {state("08001"), causeServer},
		"transaction failed unseen":   {state("25P02"), causeRun},
		"no right on a side table":    {side(state("42501")), causeRun},
		"a side table is gone":        {side(state("42P01")), causeRun},
		"too much for a side table":   {side(state("54000")), causeRow},
		"deadlock":                    {state("40P01"), causeAgain},
		"lock timeout":                {state("55P03"), causeAgain},
		"cancelled":                   {state("57014"), causeAgain},
		"statement dropped":           {state("26000"), causePlans},
		"not supported":               {state("0A000"), causeRow},
		"the plan does not fit":       {&pgconn.PgError{Code: "0A000", Routine: "RevalidateCachedQuery"}, causePlans},
		"the session ends":            {&pgconn.PgError{Code: "57P01", SeverityUnlocalized: "FATAL"}, causeRun},
		"RAISE of a state of ours":    {&pgconn.PgError{Code: "08006", SeverityUnlocalized: "ERROR", Routine: "exec_stmt_raise"}, causeRow},
		"RAISE of a disk that is not": {&pgconn.PgError{Code: "53100", SeverityUnlocalized: "ERROR", Routine: "exec_stmt_raise"}, causeRow},
		"VACUUM in a trigger":         {&pgconn.PgError{Code: "25001", SeverityUnlocalized: "ERROR", Where: "PL/pgSQL function f() line 1 at EXECUTE"}, causeRow},
		"a state that is none":        {state("7"), causeRun},
	} {
		if got := causeOf(c.err); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if !parkable(errRace) || parkable(errBarrier) || parkable(errors.New("x")) || !parkable(state("40001")) {
		t.Error("parkable: a race and what did not pass, nothing else")
	}
}

func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	p := patience{locks: 20 * time.Millisecond}
	n, began := 0, time.Now()
	for p.left(&pgconn.PgError{Code: "40P01"}) {
		n++
	}
	for p.left(&pgconn.PgError{Code: "55P03"}) {
		runtime.Gosched()
	}
	if time.Since(began) < 20*time.Millisecond {
		t.Error("locks are not waited for")
	}
	if none := (patience{}); none.left(&pgconn.PgError{Code: "55P03"}) {
		t.Error("locks are waited for without a limit")
	}
	for p.left(errRace) {
		n += 100000
	}
	if want := maxAgain + 100000*maxRaces; n != want {
		t.Errorf("tried again %d, want %d", n, want)
	}
	if p.left(&pgconn.PgError{Code: "23505"}) {
		t.Error("a row's error is not tried again")
	}
}

func TestEncoding(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ server, in, text, key string }{
		{"UTF8", "plain", "plain", "plain"},
		{"UTF8", "日é", "日é", "日é"},
		{"UTF8", "caf\xe9", "caf?", `caf\xe9`},
		{"LATIN1", "日é", "?é", `\xe6\x97\xa5\xc3\xa9`},
		{"SQL_ASCII", "é", "?", `\xc3\xa9`},
		{"EUC_JP", "日", "?", `\xe6\x97\xa5`},
	} {
		e := encodingOf(c.server)
		if got := e.text(c.in); got != c.text {
			t.Errorf("%s: text %q, want %q", c.server, got, c.text)
		}
		if got := e.key(c.in); got != c.key {
			t.Errorf("%s: key %q, want %q", c.server, got, c.key)
		}
	}
}
