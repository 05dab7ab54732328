//go:build unix

package pgsync

import (
	"errors"
	"os"
	"syscall"
)

// lockFile takes the configuration file for this worker, as long as the process lives or until unlock. The kernel
// gives the lock back when the worker is killed. false: another worker has it.
func lockFile(path string) (unlock func(), ok bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, unreadable(path, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		f.Close()
		return nil, false, nil
	}
	if err != nil {
		f.Close()
		return nil, false, unreadable(path, err)
	}
	return func() { f.Close() }, true, nil
}
