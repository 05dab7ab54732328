package pgsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pause"
	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// Options are what the command line says.
type Options struct {
	File string
	Once bool // copy everything as a whole, and end
	Log  *slog.Logger
}

// LoggedError is an error that the log has already.
type LoggedError struct{ Err error }

func (e *LoggedError) Error() string { return e.Err.Error() }
func (e *LoggedError) Unwrap() error { return e.Err }

// errBusy: another worker is at work on the same job.
var errBusy = errors.New("another worker is at work")

// Run does the jobs of a file: one run of all of them, and then again after each one's poll_interval, unless Once
// is set or no job has one. The file is read again before each run, so that tables may be added while it runs. An error of the first
// run ends it; later ones are logged, and tried again. Who starts while another worker has the file returns nil at once.
func Run(ctx context.Context, o Options) error {
	file, err := Load(o.File)
	if err != nil {
		return err
	}
	unlock, ok, err := lockFile(o.File)
	if err != nil {
		return err
	}
	if !ok {
		o.Log.Info("another worker is at work for this file; nothing to do", "config", o.File)
		return nil
	}
	defer unlock()
	due := map[string]time.Time{}
	for first := true; ; first = false {
		err := runDue(ctx, o, file, due)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && (first || o.Once):
			return err
		case o.Once || len(due) == 0:
			return nil
		}
		if err := pause.For(ctx, time.Until(earliest(due))); err != nil {
			return err
		}
		if again, err := Load(o.File); err != nil {
			o.Log.Error("the file is wrong now; going on with what it said before", "reason", oneLine(err))
		} else {
			file = again
		}
	}
}

func earliest(due map[string]time.Time) (t time.Time) {
	for _, d := range due {
		if t.IsZero() || d.Before(t) {
			t = d
		}
	}
	return t
}

// runDue runs the jobs that are due, side by side, and notes when they are due again. It returns their errors, each
// logged in one line.
func runDue(ctx context.Context, o Options, file *File, due map[string]time.Time) error {
	now := time.Now()
	errs := make([]error, len(file.Jobs))
	var wg sync.WaitGroup
	known := map[string]bool{}
	for i := range file.Jobs {
		j := &file.Jobs[i]
		known[j.Name] = true
		if now.Before(due[j.Name]) {
			continue
		}
		wg.Go(func() { errs[i] = runJob(ctx, o, j) })
	}
	wg.Wait()
	for i := range file.Jobs {
		j := &file.Jobs[i]
		if now.Before(due[j.Name]) {
			continue
		}
		delete(due, j.Name)
		if j.PollInterval > 0 {
			due[j.Name] = time.Now().Add(j.PollInterval)
		}
	}
	for name := range due {
		if !known[name] {
			delete(due, name)
		}
	}
	return errors.Join(errs...)
}

// attempts is how often a run of a job is tried that ended with its session.
const attempts = 3

// runJob is one run of one job. A session that ends in the middle is no reason to give up at once.
func runJob(ctx context.Context, o Options, j *Job) error {
	log := o.Log.With("job", j.Name)
	for n := 1; ; n++ {
		err := newPass(j, o.Once, log).run(ctx)
		switch {
		case err == nil, ctx.Err() != nil:
			return err
		case errors.Is(err, errBusy):
			log.Info("another worker is at work for this job; nothing to do")
			return nil
		case n < attempts && pg.Disconnected(err) && !unreachable(err):
			log.Warn("a session ended; beginning again", "reason", oneLine(err))
			if err := pause.For(ctx, time.Duration(n)*time.Second); err != nil {
				return err
			}
			continue
		}
		args := []any{"reason", oneLine(err)}
		var h interface{ Hint() string }
		if errors.As(err, &h) && h.Hint() != "" {
			args = append(args, "try", h.Hint())
		}
		log.Error("the run failed", args...)
		return &LoggedError{fmt.Errorf("job %s: %w", j.Name, err)}
	}
}

// unreachable is a database that does not answer at all.
func unreachable(err error) bool {
	var c *pg.ConnectError
	return errors.As(err, &c)
}
