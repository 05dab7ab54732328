package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/failpoint"
)

// The embedded server acknowledges a message when it is in its file. Whether it also waits for the disk
// depends on who relies on the stream. While the slot still holds what the stream does (nothing is confirmed
// that a peer lacks), the stream may lose its end with a power cut, and Sync brings it to disk now and then:
// only then what it holds counts as durable. From the moment on that something stands in the stream
// alone (Rely), the server makes each message, and all that it does to its files, durable by itself.

// ErrStoreLost: what the server has written could not be brought to disk, so that nobody knows what is there. The stream
// has to be published again, in a new incarnation.
var ErrStoreLost = errors.New("what was stored may not be on disk")

// everySync is for the server's own round, which rewrites blocks and would take note of errors of the disk
// in place of Sync. The server goes through its files when it stops.
const everySync = 365 * 24 * time.Hour

// prepare reads what is known of the store, and marks it, before the server runs on it.
func (e *embedded) prepare() error {
	m, err := readMark(e.cfg.StoreDir)
	if err != nil {
		return err
	}
	folders, err := e.streamFolders()
	if err != nil {
		return err
	}
	boot := bootID()
	want := booted(boot)
	// Streams without a mark are of a program that waited for the disk, and confirmed what stood in the stream alone.
	if boot == "" || e.cfg.SyncAlways || m == markRelied || m == markNone && len(folders) > 0 {
		want = markRelied
	}
	e.flusher.forget()
	e.unsure.Store(e.unsure.Load() || m.unsure(boot))
	e.lazy.Store(want != markRelied)
	e.relied.Store(false)
	e.waits.Store(false)
	if e.unsure.Load() {
		e.log.log.Warn("the machine stopped before everything was on disk; the stream is published again from the slot", "store", e.cfg.StoreDir)
		return forgetStates(folders) // the mark stays until a new incarnation begins
	}
	if m == booted(boot) && want == markRelied { // a process was killed that did not wait for the disk
		if err := syncTree(e.cfg.StoreDir); err != nil {
			return fmt.Errorf("bring the store to disk: %w", err)
		}
	}
	if m != want {
		if err := want.write(e.cfg.StoreDir); err != nil {
			// The disk is full, perhaps, and peers that read the stream make room. All that is there is on disk and stays so, and
			// nothing may stand in the stream alone that the mark does not tell of.
			e.log.log.Warn("the store cannot be marked, so each message waits for the disk", "store", e.cfg.StoreDir, "error", err)
			e.lazy.Store(true)
			e.waits.Store(true)
			return nil
		}
	}
	e.relied.Store(want == markRelied)
	return nil
}

// forgetStates removes what the server has noted of the blocks of streams: it may fit those that are gone.
func forgetStates(folders []string) error {
	for _, dir := range folders {
		if err := os.Remove(filepath.Join(dir, "msgs", stateFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make the state of the store anew: %w", err)
		}
	}
	return nil
}

// streamFolders are the folders of the streams in the store.
func (e *embedded) streamFolders() ([]string, error) {
	accounts, err := os.ReadDir(e.jetstreamDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	var found []string
	for _, a := range accounts {
		dir := filepath.Join(e.jetstreamDir(), a.Name(), "streams")
		streams, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return nil, fmt.Errorf("read store: %w", err)
		}
		for _, s := range streams {
			if s.IsDir() {
				found = append(found, filepath.Join(dir, s.Name()))
			}
		}
	}
	return found, nil
}

// rest brings the store of a server that has stopped to disk.
func (e *embedded) rest() {
	if !e.lazy.Load() || e.unsure.Load() || e.waits.Load() {
		return
	}
	err := syncTree(e.cfg.StoreDir)
	if err == nil {
		err = markClean.write(e.cfg.StoreDir)
	}
	switch {
	case errors.Is(err, errDisk):
		e.lost(err)
	case err != nil: // the mark still says that the page cache is needed
		e.log.log.Warn("the store is not brought to disk at the stop", "store", e.cfg.StoreDir, "error", err)
	}
}

// lost notes that nobody knows what is on disk.
func (e *embedded) lost(why error) {
	e.unsure.Store(true)
	e.log.log.Error("what was stored cannot be brought to disk", "store", e.cfg.StoreDir, "error", why)
	if err := markLost.write(e.cfg.StoreDir); err != nil {
		e.log.log.Error("the store cannot be marked as unsure", "error", err)
	}
}

// Lazy reports whether a message may be acknowledged before it is on disk. Otherwise, and with an external
// server, an acknowledged message is what durable means.
func (b *Broker) Lazy() bool { return b.emb != nil && b.emb.lazy.Load() }

// Unsure reports whether the stream may lack what it has acknowledged, at its end or in its midst, because the machine
// stopped, or its disk failed, before that was on disk. It stays so until Settle.
func (b *Broker) Unsure() bool { return b.emb != nil && b.emb.unsure.Load() }

// Settle takes note that a new incarnation begins, on disk, so that nobody relies on what the stream may lack.
func (b *Broker) Settle() error {
	if !b.Unsure() {
		return nil
	}
	b.restartMu.Lock()
	defer b.restartMu.Unlock()
	m := booted(bootID())
	if !b.emb.lazy.Load() {
		if err := syncTree(b.cfg.StoreDir); err != nil {
			return fmt.Errorf("bring the store to disk: %w", err)
		}
		m = markRelied
	}
	if err := m.write(b.cfg.StoreDir); err != nil {
		return err
	}
	b.emb.relied.Store(m == markRelied)
	b.emb.unsure.Store(false)
	return nil
}

// Sync brings to disk what a stream of the embedded server has acknowledged before the call. Errors: ErrStoreLost; others, such as
// fs.ErrNotExist while there is no such stream, behind which it may be tried again. It may be called from anywhere.
func (b *Broker) Sync(stream string) error {
	if b.emb == nil {
		return nil
	}
	folders, err := b.emb.streamFolders()
	if err != nil {
		return fmt.Errorf("bring stream %s to disk: %w", stream, err)
	}
	folders = slices.DeleteFunc(folders, func(dir string) bool { return filepath.Base(dir) != stream })
	if len(folders) != 1 {
		return fmt.Errorf("bring stream %s to disk: %w", stream, fs.ErrNotExist)
	}
	if err := failpoint.Hit("broker_before_sync"); err != nil {
		return err
	}
	err = b.emb.flusher.sync(folders[0])
	switch {
	case errors.Is(err, errDisk):
		b.emb.lost(err)
		return fmt.Errorf("bring stream %s to disk: %w: %w", stream, ErrStoreLost, err)
	case err != nil:
		return fmt.Errorf("bring stream %s to disk: %w", stream, err)
	}
	return nil
}

// Rely says whether the stream may hold what is nowhere else, from when it returns on or not any more. The embedded server
// is started again for it; with an external server, or where it is so already, it does nothing. Where it does
// not succeed, Lazy goes on to say so, and it may be tried again: within 10 s that does nothing.
func (b *Broker) Rely(ctx context.Context, on bool) error {
	if b.emb == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	b.restartMu.Lock()
	defer b.restartMu.Unlock()
	e := b.emb
	always := bootID() == "" || b.cfg.SyncAlways
	if b.ctx.Err() != nil || e.server() == nil || e.unsure.Load() || e.relied.Load() == on || !on && always || time.Since(b.refused) < restartPause {
		return nil
	}
	b.log.Info("the embedded server starts again", "relied", on)
	e.stop()
	b.remark(on)
	if err := e.start(); err != nil {
		b.noteError(err)
		b.run(b.retryStart)
		return fmt.Errorf("restart embedded server: %w", err)
	}
	if e.relied.Load() != on {
		b.refused = time.Now()
	}
	return nil
}

// remark replaces the mark of a store whose server has stopped, if all of it is on disk.
func (b *Broker) remark(on bool) {
	now, m := markRelied, markClean
	if on {
		now, m = m, now
	}
	found, err := readMark(b.cfg.StoreDir)
	if err == nil && found == now {
		err = m.write(b.cfg.StoreDir)
	}
	if err != nil {
		b.log.Error("the store cannot be marked", "error", err)
	}
}

// Doubt makes Lazy say that nothing may stand in the stream alone any more, ahead of a Rely that ends that. It may be called from anywhere.
func (b *Broker) Doubt() {
	if b.emb != nil && b.emb.relied.Load() && !b.cfg.SyncAlways && bootID() != "" {
		b.emb.lazy.Store(true)
	}
}
