//go:build unix

package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// shadow is what a disk holds that keeps nothing but what it was told to: of a file what it was when it was
// brought to disk last, of a folder the names that it had then.
type shadow struct {
	t     *testing.T
	mu    sync.Mutex
	files map[uint64][]byte // by inode
	dirs  map[string]map[string]uint64
	fail  error
}

func (s *shadow) put(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		data, err := os.ReadFile(path)
		s.files[info.Sys().(*syscall.Stat_t).Ino] = data
		return err
	}
	list, err := os.ReadDir(path)
	names := map[string]uint64{}
	for _, e := range list {
		if i, err := e.Info(); err == nil && i.Mode().IsRegular() {
			names[e.Name()] = i.Sys().(*syscall.Stat_t).Ino
		}
	}
	s.dirs[path] = names
	return err
}

// image writes a store as the disk has it.
func (s *shadow) image(from, to string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for dir, names := range s.dirs {
		rel, err := filepath.Rel(from, dir)
		if err != nil {
			s.t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(to, rel), 0o700); err != nil {
			s.t.Fatal(err)
		}
		for name, ino := range names { // a file that was never brought to disk is empty
			if err := os.WriteFile(filepath.Join(to, rel, name), s.files[ino], 0o600); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func onShadow(t *testing.T, b *Broker) *shadow {
	s := &shadow{t: t, files: map[uint64][]byte{}, dirs: map[string]map[string]uint64{}}
	b.emb.flusher.mu.Lock()
	defer b.emb.flusher.mu.Unlock()
	b.emb.flusher.disk = s.put
	return s
}

// age lets what has changed in the store have changed an hour ago.
func age(t *testing.T, b *Broker) {
	t.Helper()
	err := filepath.WalkDir(b.emb.jetstreamDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && time.Since(info.ModTime()) < time.Minute {
			at := info.ModTime().Add(-time.Hour)
			err = os.Chtimes(path, at, at)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

const streamOfEU = "PGWALTZ_test_eu"

func ownStream(t *testing.T, b *Broker) (jetstream.JetStream, jetstream.Stream) {
	t.Helper()
	js, err := b.OwnJS()
	if err != nil {
		t.Fatal(err)
	}
	var s jetstream.Stream
	for deadline := time.Now().Add(10 * time.Second); ; {
		s, err = js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: streamOfEU, Subjects: []string{"pgwaltz.test.eu"}, MaxBytes: 12 << 20, Discard: jetstream.DiscardNew})
		if err == nil {
			return js, s
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// What was acknowledged before Sync is there when the power fails behind it, whatever the server does to its blocks meanwhile.
func TestSyncOutlivesAPowerCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := runs(t, Config{StoreDir: dir})
	disk := onShadow(t, b)
	js, s := ownStream(t, b)
	rng := rand.New(rand.NewPCG(1, 2))
	var sent [][]byte
	first, synced := uint64(1), 0
	cut := func() {
		gone := filepath.Join(t.TempDir(), "gone")
		disk.image(dir, gone)
		if err := booted("of-before").write(gone); err != nil {
			t.Fatal(err)
		}
		after := runs(t, Config{StoreDir: gone})
		defer after.Close()
		if !after.Unsure() {
			t.Fatal("the power cut was not noticed")
		}
		_, left := ownStream(t, after)
		for seq := first; seq <= uint64(synced); seq++ {
			m, err := left.GetMsg(t.Context(), seq)
			if err != nil || !bytes.Equal(m.Data, sent[seq-1]) {
				t.Fatalf("message %d of %d, the stream begins at %d: %v", seq, synced, first, err)
			}
		}
	}
	for n := range 400 {
		data := make([]byte, 1+rng.IntN(60<<10))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		if _, err := js.Publish(t.Context(), "pgwaltz.test.eu", data); err != nil {
			t.Fatal(err)
		}
		sent = append(sent, data)
		if rng.IntN(7) == 0 {
			if rng.IntN(2) == 0 {
				age(t, b)
			}
			if err := b.Sync(streamOfEU); err != nil {
				t.Fatal(err)
			}
			synced = len(sent)
		}
		if n%40 == 39 {
			cut()
			first = uint64(max(1, len(sent)-60))
			if err := s.Purge(t.Context(), jetstream.WithPurgeSequence(first)); err != nil {
				t.Fatal(err)
			}
			if rng.IntN(2) == 0 {
				if err := b.Sync(streamOfEU); err != nil {
					t.Fatal(err)
				}
				synced = len(sent)
				cut()
			}
		}
	}
}

// Nothing counts as on disk after the disk has said that something is not.
func TestSyncThatFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := runs(t, Config{StoreDir: dir})
	if err := b.Sync(streamOfEU); !errors.Is(err, fs.ErrNotExist) || b.Unsure() {
		t.Fatalf("there is no stream: %v", err)
	}
	disk := onShadow(t, b)
	js, _ := ownStream(t, b)
	disk.fail = syscall.EMFILE
	if _, err := js.Publish(t.Context(), "pgwaltz.test.eu", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(streamOfEU); err == nil || errors.Is(err, ErrStoreLost) || b.Unsure() {
		t.Fatalf("the file could not be opened: %v, unsure %v", err, b.Unsure())
	}
	disk.fail = fmt.Errorf("%w: %w", errDisk, syscall.EIO)
	if _, err := js.Publish(t.Context(), "pgwaltz.test.eu", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(streamOfEU); !errors.Is(err, ErrStoreLost) || !b.Unsure() {
		t.Fatalf("the disk failed: %v, unsure %v", err, b.Unsure())
	}
	if got := text(t, filepath.Join(dir, markName)); got != string(markLost) {
		t.Errorf("the mark is %q", got)
	}
}

// A stream that was made anew is brought to disk like the one before, although its blocks have lower names.
func TestSyncOfAStreamMadeAnew(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "s")
	msgs := filepath.Join(dir, "msgs")
	put := map[string]int{}
	f := &flusher{disk: func(path string) error { put[filepath.Base(path)]++; return nil }}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-time.Hour)
	begin := func(names ...string) {
		t.Helper()
		do(os.RemoveAll(dir))
		do(os.MkdirAll(msgs, 0o700))
		for _, n := range names {
			do(os.WriteFile(filepath.Join(msgs, n), nil, 0o600))
		}
		long = long.Add(time.Second)
		do(os.Chtimes(msgs, long, long))
		do(os.Chtimes(dir, long, long))
	}
	grows := func(name string) {
		t.Helper()
		before := put[name]
		do(os.WriteFile(filepath.Join(msgs, name), []byte("more"), 0o600))
		do(f.sync(dir))
		if put[name] == before {
			t.Errorf("%s has grown and is not on disk", name)
		}
	}
	begin("1.blk", "2.blk", "10.blk")
	do(f.sync(dir))
	grows("10.blk")
	begin("1.blk")
	do(f.sync(dir))
	grows("1.blk")
	begin("1.blk", "2.blk")
	delete(f.dirs, msgs)
	f.dirs[msgs], _ = os.Stat(msgs)
	f.tail = filepath.Join(msgs, "10.blk") // its folder was looked at as it went
	do(f.sync(dir))
	grows("2.blk")
}

// Who relies on the stream has a server that waits for the disk, also after a start, until nobody does.
func TestRely(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := runs(t, Config{StoreDir: dir})
	if !b.Lazy() {
		t.Skip("nothing tells one boot from the next here")
	}
	js, _ := ownStream(t, b)
	if _, err := js.Publish(t.Context(), "pgwaltz.test.eu", []byte("x")); err != nil {
		t.Fatal(err)
	}
	look := func(what string, b *Broker, lazy bool) {
		t.Helper()
		if b.Lazy() != lazy || b.emb.server().JetStreamConfig().SyncAlways == lazy {
			t.Errorf("%s: lazy %v, the server waits %v", what, b.Lazy(), b.emb.server().JetStreamConfig().SyncAlways)
		}
		_, s := ownStream(t, b)
		ctx, done := context.WithTimeout(t.Context(), 5*time.Second)
		defer done()
		if m, err := s.GetMsg(ctx, 1); err != nil || string(m.Data) != "x" {
			t.Errorf("%s: the message is gone: %v", what, err)
		}
	}
	look("from the beginning", b, true)
	if err := b.Rely(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	look("relied on", b, false)
	b.Close()
	b = runs(t, Config{StoreDir: dir})
	look("relied on, and started again", b, false)
	b.Doubt()
	if !b.Lazy() || text(t, filepath.Join(dir, markName)) != string(markRelied) {
		t.Error("something may still stand in the stream alone while that is about to end")
	}
	if err := b.Rely(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	look("not any more", b, true)
}
