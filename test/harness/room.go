package harness

import (
	"fmt"
	"os"
	"path/filepath"
)

// Room is a temporary folder that the PostgreSQL user can reach, short enough for the
// names of unix sockets.
type Room struct{ Dir string }

// NewRoom makes a folder under the system's temporary folder, or under /tmp when that
// one's name is too long for a unix socket.
func NewRoom() (*Room, error) {
	base := os.TempDir()
	if len(base) > 40 {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "harness-")
	if err != nil {
		return nil, fmt.Errorf("make temporary folder: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open temporary folder %s: %w", dir, err)
	}
	return &Room{Dir: dir}, nil
}

// Sub makes a folder below the room. When owned is true it belongs to the PostgreSQL user.
func (r *Room) Sub(name string, owned bool) (string, error) {
	dir := filepath.Join(r.Dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make folder %s: %w", name, err)
	}
	if owned {
		if err := chownServer(dir); err != nil {
			return "", err
		}
	}
	return dir, nil
}

func chownServer(path string) error {
	cred, err := serverUser()
	if err != nil || cred == nil {
		return err
	}
	if err := os.Chown(path, int(cred.Uid), int(cred.Gid)); err != nil {
		return fmt.Errorf("give %s to the PostgreSQL user: %w", filepath.Base(path), err)
	}
	return nil
}

// Close removes the folder with everything in it.
func (r *Room) Close() error {
	if os.Getenv("PGWALTZ_KEEP") != "" {
		return nil
	}
	return os.RemoveAll(r.Dir)
}
