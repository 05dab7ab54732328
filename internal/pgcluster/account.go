package pgcluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user that the server runs as when we are root, which PostgreSQL refuses.
type account struct{ uid, gid uint32 }

// RootError says that root has no account to run the server as.
type RootError struct{ Err error }

func (e *RootError) Error() string { return fmt.Sprintf("find user postgres: %v", e.Err) }
func (e *RootError) Unwrap() error { return e.Err }

// Hint is the remedy.
func (e *RootError) Hint() string {
	return "run as an ordinary user, or create a user named postgres: PostgreSQL refuses to run as root"
}

func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, &RootError{err}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, &RootError{err}
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, &RootError{err}
	}
	return &account{uid: uint32(uid), gid: uint32(gid)}, nil
}

// own gives a file or folder to the server's user.
func (c *Cluster) own(path string) error {
	if c.user == nil {
		return nil
	}
	if err := os.Chown(path, int(c.user.uid), int(c.user.gid)); err != nil {
		return fmt.Errorf("give %s to user postgres: %w", path, err)
	}
	return nil
}

// command prepares a PostgreSQL program as the server's user, in its own process group: an
// interrupt typed at the terminal is for us to handle, and must not reach the server first.
func (c *Cluster) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.cfg.Bin, program), args...)
	cmd.Dir = c.cfg.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.user != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.user.uid, Gid: c.user.gid}
	}
	// initdb has children of its own; a cancelled one takes them along.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

func randomPassword() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make a password: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}
