package hold

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
)

// NotAllError says that something could not be given back. The rest was; another call tries again.
type NotAllError struct{ What string }

func (e *NotAllError) Error() string { return "not all writes were given back: " + e.What }

// Hint says how to go on.
func (e *NotAllError) Hint() string {
	return "grant it by hand or mend the cause, and run pgwaltz cutover resume-write again"
}

// ExitCode is that of problems found.
func (e *NotAllError) ExitCode() int { return 4 }

// GiveBack gives back what was taken, and reports whether there was anything. It may be called again; what was given back once is not touched again.
func GiveBack(ctx context.Context, conn *pgx.Conn) (bool, error) {
	text, err := source(ctx, conn)
	if err != nil || text == "" {
		return false, err
	}
	said, err := call(ctx, conn, true)
	if err != nil {
		return false, err
	}
	if what, ok := strings.CutPrefix(said, "not all: "); ok {
		return true, &NotAllError{what}
	}
	switch said {
	case "gone":
		return false, nil
	case "early":
		return false, fmt.Errorf("give writes back: only the role that paused them may do that before the time is over")
	}
	return true, failpoint.Hit("cutover.given")
}
