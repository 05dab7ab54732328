package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestReferenceIsFresh(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	if got := reference(newRoot(nil, io.Discard, io.Discard)); !bytes.Equal(got, want) {
		t.Error("docs/cli.md is stale: make docs")
	}
}

func TestDocsWritesAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "cli.md")
	if code, stdout, stderr := call(t, "docs", "-o", path); code != exitOK || stdout != "" || stderr != "" {
		t.Fatalf("code %d, %q, %q", code, stdout, stderr)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, reference(newRoot(nil, io.Discard, io.Discard))) {
		t.Errorf("%v, %d bytes", err, len(got))
	}
	if code, stdout, _ := call(t, "docs"); code != exitOK || stdout != string(got) {
		t.Errorf("code %d, %d bytes on standard output", code, len(stdout))
	}
	if code, _, stderr := call(t, "docs", "-o", filepath.Join(path, "below")); code != exitOther || stderr == "" {
		t.Errorf("code %d, %q", code, stderr)
	}
}
