package broker

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
)

// serverLog turns the embedded server's log into records of ours. What the server calls an
// error is a warning here: the sidecar goes on, and says itself when it cannot.
type serverLog struct {
	log   *slog.Logger
	fatal atomic.Pointer[string] // the server means to end the process; we end the start
}

func (l *serverLog) at(level slog.Level, format string, v []any) {
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	l.log.Log(context.Background(), level, "nats: "+strings.TrimSpace(fmt.Sprintf(format, v...)))
}

func (l *serverLog) Noticef(format string, v ...any) { l.at(slog.LevelDebug, format, v) }
func (l *serverLog) Debugf(format string, v ...any)  { l.at(slog.LevelDebug, format, v) }
func (l *serverLog) Tracef(format string, v ...any)  { l.at(slog.LevelDebug, format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.at(slog.LevelWarn, format, v) }

func (l *serverLog) Warnf(format string, v ...any) {
	if strings.HasPrefix(format, "Plaintext passwords") {
		return // they live in memory only, made or read from a file at start
	}
	l.at(slog.LevelWarn, format, v)
}

func (l *serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.fatal.CompareAndSwap(nil, &text)
	l.at(slog.LevelError, format, v)
}
