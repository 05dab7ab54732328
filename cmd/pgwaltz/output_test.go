package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/status"
)

// What a table, a server or a peer calls itself begins no line and no column of a report, and no
// terminal obeys it.
func TestReportsKeepForeignTextInItsPlace(t *testing.T) {
	t.Parallel()
	const evil = "x\nstate  replicating\tok\x1b[2J\u202e\u009b31m"
	now := time.Now()
	e := &status.LastError{At: now, Message: evil, Table: evil}
	st := status.Status{
		Cluster: "c", Region: "eu", State: status.Gap, LastError: e, Conflicts: status.Conflicts{Total: 1, LastAt: &now, Last: evil},
		Outbound: &status.Outbound{State: status.Gap, Reason: evil, Gap: &status.GapInfo{From: "0/1", To: "0/2", Remedy: evil}, LastError: e, Peers: []status.Peer{{Region: "us"}}},
		Inbound:  []status.Inbound{{Origin: "us", State: status.Down, Reason: evil, LastError: &status.LastError{At: now.Add(1), Message: evil}}},
		Copy:     []status.Copy{{Table: evil, State: "failed", Reason: evil}},
	}
	var table, one strings.Builder
	if err := printStatus(&table, st, now); err != nil {
		t.Fatal(err)
	}
	one.WriteString("\n")
	if code := report(&one, errors.New("print "+evil)); code != exitOther {
		t.Errorf("exit code %d", code)
	}
	var asJSON, line strings.Builder
	if err := errors.Join(printJSON(&asJSON, st), jsonLine(&line, st)); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{asJSON.String(), line.String()} {
		if strings.ContainsAny(text, "\x1b\u202e\u009b\t") || !strings.Contains(text, `\u001b[2J\u202e\u009b31m`) {
			t.Errorf("%q", text)
		}
	}
	for _, text := range []string{table.String(), strings.ReplaceAll(one.String(), "\nstate", "")} {
		if strings.ContainsAny(text, "\x1b\u202e\u009b\t") || strings.Contains(text, "\nstate  repl") {
			t.Errorf("%q", text)
		}
		if !strings.Contains(text, `\x1b[2J\u202e\u009b31m`) {
			t.Errorf("nothing is shown of it: %q", text)
		}
	}
	if n := strings.Count(table.String(), "\n"); n != 14 {
		t.Errorf("%d lines:\n%s", n, table.String())
	}
	screened := screen{&one}
	if n, err := screened.Write([]byte("a\nb\x1b")); n != 4 || err != nil || !strings.HasSuffix(one.String(), "a\nb\\x1b") {
		t.Errorf("%d %v %q", n, err, one.String())
	}
}
