package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/pgwaltz/pgwaltz/internal/visible"
)

// printJSON prints v as one indented JSON value. No terminal obeys what its strings hold.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(visible.JSONWriter(w))
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print json: %w", err)
	}
	return nil
}

// jsonLine prints v as one line of JSON, as printJSON does.
func jsonLine(w io.Writer, v any) error {
	e := json.NewEncoder(visible.JSONWriter(w))
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// row prints one line of a report for people. What its arguments hold cannot begin a line or a
// column of its own, and no terminal obeys it.
func row(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(w, format, visible.Args(args)...)
	return err
}

// forScreen is w for scripts: a file or a pipe gets every byte of a name, a terminal gets escapes.
func forScreen(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return screen{w}
	}
	return w
}

// screen escapes what a terminal would obey. Each Write has whole characters.
type screen struct{ w io.Writer }

func (s screen) Write(p []byte) (int, error) {
	if _, err := io.WriteString(s.w, visible.Lines(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
