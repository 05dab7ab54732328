//go:build linux || darwin || freebsd

package broker

import "syscall"

// freeBytes is what this user may still write into the folder's file system.
func freeBytes(dir string) (int64, bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
