package broker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	storeCheck = 500 * time.Millisecond
	// restartPause keeps a server that cannot be helped from being restarted all the time.
	restartPause = 10 * time.Second
)

// watchStore restarts the server when its store was deleted under it or JetStream gave up.
// Neither heals by itself: the one acknowledges into deleted files, the other stays off.
func (b *Broker) watchStore() {
	tick := time.NewTicker(storeCheck)
	defer tick.Stop()
	seen := b.emb.look()
	for {
		select {
		case <-tick.C:
		case <-b.ctx.Done():
			return
		}
		srv := b.emb.server()
		if srv == nil {
			continue
		}
		now := b.emb.look()
		lost := seen.lost(now)
		if lost != "" && b.deleted(lost) {
			b.log.Error("the JetStream store was deleted under the server; it starts again with what is left", "missing", lost)
			b.restart("store deleted", true)
			seen = b.emb.look()
			continue
		}
		if !srv.JetStreamEnabled() {
			b.restart("JetStream is disabled", false)
			seen = b.emb.look()
			continue
		}
		seen = now
	}
}

// Restart stops the embedded server and starts it again over its store, for states that only
// that cures, such as insufficient resources after a full disk. It does nothing within 10 s
// of the last restart, nor with an external server.
func (b *Broker) Restart(ctx context.Context, reason string) error {
	if b.emb == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	return b.restart(reason, false)
}

func (b *Broker) restart(reason string, now bool) error {
	b.restartMu.Lock()
	defer b.restartMu.Unlock()
	if b.ctx.Err() != nil || !now && time.Since(b.restarted) < restartPause {
		return nil
	}
	b.restarted = time.Now()
	b.log.Warn("restarting the embedded server", "reason", reason)
	b.emb.stop()
	if err := b.emb.start(); err != nil {
		b.log.Error("restarting the embedded server", "error", err)
		b.noteError(err)
		b.run(b.retryStart)
		return fmt.Errorf("restart embedded server: %w", err)
	}
	return nil
}

// retryStart goes on until the server runs: a disk may be full, a volume away for a while.
func (b *Broker) retryStart() {
	b.every(time.Second, func() bool {
		b.restartMu.Lock()
		err := error(nil)
		if b.emb.server() == nil {
			err = b.emb.start()
		}
		b.restartMu.Unlock()
		if err != nil {
			b.noteError(err)
		}
		return err != nil
	})
}

// storeView is what of the store can be seen from outside of the server.
type storeView struct {
	dir     os.FileInfo     // the JetStream folder
	streams map[string]bool // message folder of a stream -> has at least one block file
}

func (e *embedded) look() storeView {
	v := storeView{streams: map[string]bool{}}
	v.dir, _ = os.Stat(e.jetstreamDir())
	dirs, _ := filepath.Glob(filepath.Join(e.jetstreamDir(), "*", "streams", "*", "msgs"))
	for _, d := range dirs {
		entries, _ := os.ReadDir(d)
		for _, f := range entries {
			if strings.HasSuffix(f.Name(), ".blk") {
				v.streams[d] = true
				break
			}
		}
	}
	return v
}

// holds reports whether the stream has a block file.
func (e *embedded) holds(stream string) bool {
	files, _ := filepath.Glob(filepath.Join(e.jetstreamDir(), "*", "streams", stream, "msgs", "*.blk"))
	return len(files) > 0
}

// lost names what v had and now lacks, "" for nothing.
func (v storeView) lost(now storeView) string {
	if v.dir == nil {
		return ""
	}
	if now.dir == nil || !os.SameFile(v.dir, now.dir) {
		return v.dir.Name()
	}
	for d := range v.streams {
		if !now.streams[d] {
			return filepath.Base(filepath.Dir(d))
		}
	}
	return ""
}

// deleted asks the server whether it knows that the thing is gone: a stream that was deleted
// through JetStream takes its folder along.
func (b *Broker) deleted(what string) bool {
	now := b.emb.look()
	if now.dir == nil || what == filepath.Base(b.emb.jetstreamDir()) {
		return true
	}
	js, err := b.JS(b.cfg.Region)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(b.ctx, 2*time.Second)
	defer cancel()
	s, err := js.Stream(ctx, what)
	// A purge removes the last block before it makes the next, so look once more.
	return err == nil && s.CachedInfo().State.Msgs > 0 && b.ctx.Err() == nil && !b.emb.holds(what)
}
