//go:build !unix

package broker

import (
	"fmt"
	"os"
	"path/filepath"
)

// lockStore only marks the folder: without flock, the operator sees to it that one process uses it.
func lockStore(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock store: %w", err)
	}
	return f, nil
}
