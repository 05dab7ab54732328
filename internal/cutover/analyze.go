package cutover

import (
	"context"
	"fmt"
	"time"
)

// Analyze gathers the statistics of all tables at the destination that its role may analyze: roughly at first, so that plans are not blind for long,
// then as the server is set, each within a time. told is called before each stage. It may be run again, and beside writes.
func (e *Ends) Analyze(ctx context.Context, within time.Duration, told func(stage string)) error {
	defer func() {
		if !e.Destination.Conn.IsClosed() {
			_, _ = e.Destination.Conn.Exec(context.WithoutCancel(ctx), `reset default_statistics_target`) // the session ends with the command
		}
	}()
	for _, s := range []struct{ name, sql string }{
		{"a rough look", `set default_statistics_target = 1`},
		{"a closer one", `set default_statistics_target = 10`},
		{"as the server is set", `reset default_statistics_target`},
	} {
		told(s.name)
		if _, err := e.Destination.Conn.Exec(ctx, s.sql); err != nil {
			return fmt.Errorf("analyze the tables of %s: %w", e.Destination.Region, err)
		}
		stage, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("%s: not within %s", s.name, within))
		_, err := e.Destination.Conn.Exec(stage, `analyze`)
		if err != nil && stage.Err() != nil {
			err = context.Cause(stage)
		}
		if cancel(); err != nil {
			return fmt.Errorf("analyze the tables of %s: %w", e.Destination.Region, err)
		}
	}
	return nil
}
