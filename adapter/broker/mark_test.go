package broker

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What a start finds in the store, what it says of it, and what it leaves there.
func TestMarkTruthTable(t *testing.T) {
	t.Parallel()
	if bootID() == "" {
		t.Skip("nothing tells one boot from the next here")
	}
	here := string(booted(bootID()))
	for name, c := range map[string]struct {
		found        string
		always       bool
		lazy, unsure bool
		runs, rests  string // the mark while the server runs, and when it has stopped
	}{
		"new":                      {"", false, true, false, here, "clean"},
		"stopped in order":         {"clean", false, true, false, here, "clean"},
		"killed":                   {here, false, true, false, here, "clean"},
		"power cut":                {"boot of-before", false, true, true, "boot of-before", "boot of-before"},
		"disk failed":              {"lost", false, true, true, "lost", "lost"},
		"torn":                     {"bo", false, true, true, "bo", "bo"},
		"relied on":                {"relied", false, false, false, "relied", "relied"},
		"always, new":              {"", true, false, false, "relied", "relied"},
		"always, stopped before":   {"clean", true, false, false, "relied", "relied"},
		"always, killed before it": {here, true, false, false, "relied", "relied"},
		"always, power cut":        {"boot of-before", true, false, true, "boot of-before", "boot of-before"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, markName)
		if c.found != "" {
			if err := os.WriteFile(path, []byte(c.found+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b := runs(t, Config{StoreDir: dir, SyncAlways: c.always})
		if b.Lazy() != c.lazy || b.Unsure() != c.unsure {
			t.Errorf("%s: lazy %v, unsure %v", name, b.Lazy(), b.Unsure())
		}
		if got := text(t, path); got != c.runs {
			t.Errorf("%s: the mark of the server that runs is %q, want %q", name, got, c.runs)
		}
		b.Close()
		if got := text(t, path); got != c.rests {
			t.Errorf("%s: the mark of the server that has stopped is %q, want %q", name, got, c.rests)
		}
	}
}

// Streams that a program left which knew no mark may hold what is nowhere else.
func TestStoreWithoutMark(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := runs(t, Config{StoreDir: dir})
	if !b.Lazy() {
		t.Skip("nothing tells one boot from the next here")
	}
	ownStream(t, b)
	b.Close()
	if err := os.Remove(filepath.Join(dir, markName)); err != nil {
		t.Fatal(err)
	}
	b = runs(t, Config{StoreDir: dir})
	if b.Lazy() || b.Unsure() || !b.emb.server().JetStreamConfig().SyncAlways {
		t.Errorf("lazy %v, unsure %v", b.Lazy(), b.Unsure())
	}
	if got := text(t, filepath.Join(dir, markName)); got != "relied" {
		t.Errorf("the mark is %q", got)
	}
}

// A store that takes no mark takes messages all the same: each waits for the disk, and none may stand there alone.
func TestStoreThatTakesNoMark(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	barred := filepath.Join(dir, markName+".new")
	if err := os.Mkdir(barred, 0o700); err != nil {
		t.Fatal(err)
	}
	b := runs(t, Config{StoreDir: dir})
	look := func(what string, lazy bool, mark string) {
		t.Helper()
		if got := text(t, filepath.Join(dir, markName)); b.Lazy() != lazy || !b.emb.server().JetStreamConfig().SyncAlways || got != mark {
			t.Errorf("%s: lazy %v, the server waits %v, the mark is %q", what, b.Lazy(), b.emb.server().JetStreamConfig().SyncAlways, got)
		}
	}
	look("from the beginning", true, "")
	ownStream(t, b)
	if err := b.Sync(streamOfEU); err != nil {
		t.Fatal(err)
	}
	if err := b.Rely(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	look("not to be relied on", true, "")
	if err := os.Remove(barred); err != nil {
		t.Fatal(err)
	}
	if err := b.Rely(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	look("at once again", true, "")
	b.refused = time.Time{}
	if err := b.Rely(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	look("later", false, "relied")
}

// A store that is not sure stays so until a new incarnation begins.
func TestSettle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := markLost.write(dir); err != nil {
		t.Fatal(err)
	}
	b := runs(t, Config{StoreDir: dir})
	b.Close()
	b = runs(t, Config{StoreDir: dir})
	if !b.Unsure() {
		t.Fatal("a second start has made the store sure")
	}
	if err := b.Settle(); err != nil || b.Unsure() {
		t.Fatalf("settled: %v, unsure %v", err, b.Unsure())
	}
	b.Close()
	if b = runs(t, Config{StoreDir: dir}); b.Unsure() {
		t.Error("it is not sure after it was settled")
	}
}

func runs(t *testing.T, cfg Config) *Broker {
	t.Helper()
	cfg.Cluster, cfg.Region, cfg.MaxBytes = "test", "eu", 64<<20
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// text is what a file says; nothing where there is none.
func text(t *testing.T, path string) string {
	t.Helper()
	m, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(trimLine(m))
}

func trimLine(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		return b[:n-1]
	}
	return b
}
