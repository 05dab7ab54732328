package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// templates holds one initialised data folder per cluster name: initdb costs a second,
// a copy some milliseconds. Every name has its own system identifier, because two regions
// with one identifier would be taken for one server.
var templates = &templateStore{dirs: map[string]string{}}

type templateStore struct {
	mu   sync.Mutex
	room *Room
	dirs map[string]string
	// count numbers the folders.
	count int
}

func (s *templateStore) copyTo(bin Binaries, name, dst string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := bin.Dir + "/" + name
	src, ok := s.dirs[key]
	if ok {
		// Somebody may have tidied the temporary folder of a long run.
		_, err := os.Stat(filepath.Join(src, "PG_VERSION"))
		ok = err == nil
	}
	if !ok {
		s.count++
		var err error
		if src, err = s.initdb(bin, s.count); err != nil {
			return err
		}
		s.dirs[key] = src
	}
	return copyTree(src, dst)
}

func (s *templateStore) initdb(bin Binaries, n int) (string, error) {
	if s.room == nil {
		r, err := NewRoom()
		if err != nil {
			return "", err
		}
		s.room = r
	}
	home, err := s.room.Sub(fmt.Sprintf("t%d", n), true)
	if err != nil {
		return "", err
	}
	cred, err := serverUser()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(home, "data")
	cmd := exec.Command(bin.Path("initdb"), "-N", "-D", dir, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
	cmd.Dir = home
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("run initdb: %w: %s", err, out)
	}
	return dir, nil
}

// fresh makes a data folder that nobody else has; the caller moves it away.
func (s *templateStore) fresh(bin Binaries) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	return s.initdb(bin, s.count)
}

// RemoveTemplates deletes the cached data folders; the next cluster pays for initdb again.
// Call it once at the end of a test binary.
func RemoveTemplates() {
	templates.mu.Lock()
	defer templates.mu.Unlock()
	if templates.room != nil {
		_ = templates.room.Close()
		templates.room = nil
	}
	clear(templates.dirs)
}

// copyTree copies a folder with owners and modes kept. An existing destination must be an
// empty folder (a mount point).
func copyTree(src, dst string) error {
	st, err := os.Stat(dst)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return fmt.Errorf("look at %s: %w", dst, err)
	case !st.IsDir():
		return fmt.Errorf("copy to %s: not a folder", dst)
	}
	args := []string{"-a", src + "/.", dst}
	if err != nil {
		args = []string{"-a", src, dst}
	}
	if out, err := exec.Command("cp", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s: %w: %s", filepath.Base(src), err, out)
	}
	return nil
}
