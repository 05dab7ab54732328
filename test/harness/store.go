package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// StoreDir is the folder in which the streams of a region lie: its own store in the
// embedded topology, the server's in the external one.
func (p *Pair) StoreDir(r *Region) string {
	if p.Topology == External {
		return p.NATS.Store
	}
	return filepath.Join(p.room.Dir, r.Name, "nats")
}

// StoreDir is the folder of the sidecar's embedded server.
func (s *Sidecar) StoreDir() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	nats, _ := s.conf["nats"].(map[string]any)
	dir, _ := nats["store_dir"].(string)
	return dir
}

// StoreTmpfs puts the store of the region's embedded server on a tmpfs of the given size, or changes the
// size of that tmpfs. The first call comes before the first start. It needs root.
func (p *Pair) StoreTmpfs(r *Region, mb int) error {
	dir := p.StoreDir(r)
	if p.mounts[dir] {
		if out, err := exec.Command("mount", "-o", fmt.Sprintf("remount,size=%dm", mb), dir).CombinedOutput(); err != nil {
			return fmt.Errorf("remount store: %w: %s", err, out)
		}
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make store folder: %w", err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm,mode=0700", mb), "tmpfs", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mount tmpfs for the store: %w: %s", err, out)
	}
	if p.mounts == nil {
		p.mounts = map[string]bool{}
	}
	p.mounts[dir] = true
	return nil
}

// DeleteStore removes everything in a store folder, whether or not a server uses it.
func DeleteStore(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read store: %w", err)
	}
	for _, e := range entries {
		err := os.RemoveAll(filepath.Join(dir, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete store: %w", err)
		}
	}
	return nil
}

// CopyStore makes the folder to a copy of the folder from. No server may use either.
func CopyStore(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return fmt.Errorf("copy store: %w", err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return fmt.Errorf("copy store: %w", err)
	}
	return nil
}

// Unplug lets the store of an embedded server, which is stopped, look as if its machine had stopped before everything was on disk.
func Unplug(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "pgwaltz.synced"), []byte("boot of-before\n"), 0o600); err != nil {
		return fmt.Errorf("unplug store: %w", err)
	}
	return nil
}

// newestBlock finds the message block of a region's stream that was written last.
func newestBlock(dir, stream string) (string, error) {
	var best string
	var at int64
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".blk") || !strings.Contains(path, "/"+stream+"/") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if t := info.ModTime().UnixNano(); info.Size() > 0 && t >= at {
			best, at = path, t
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("look for message blocks: %w", err)
	}
	if best == "" {
		return "", fmt.Errorf("look for message blocks of %s: none found", stream)
	}
	return best, nil
}

// FlipBit inverts one bit in the middle of the newest message block of a stream. The
// server must be stopped.
func FlipBit(dir, stream string) error {
	path, err := newestBlock(dir, stream)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read message block: %w", err)
	}
	data[len(data)/2] ^= 0x10
	if err := os.WriteFile(path, data, 0o640); err != nil {
		return fmt.Errorf("write message block: %w", err)
	}
	return nil
}

// Truncate cuts bytes off the end of the newest message block of a stream. The server
// must be stopped.
func Truncate(dir, stream string, bytes int64) error {
	path, err := newestBlock(dir, stream)
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at message block: %w", err)
	}
	if err := os.Truncate(path, max(0, st.Size()-bytes)); err != nil {
		return fmt.Errorf("truncate message block: %w", err)
	}
	return nil
}
