package broker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// storeMark says, in a file in the store, what of the store is on disk. It is itself on disk before what
// it speaks of is done.
type storeMark string

const (
	// markNone: nothing was noted. Each message was made durable before it was acknowledged.
	markNone storeMark = ""
	// markClean: all of the store is on disk.
	markClean storeMark = "clean"
	// markRelied: all of it is, and each message is made durable before it is acknowledged, because
	// somebody relies on the stream alone.
	markRelied storeMark = "relied"
	// markLost: something that was written could not be brought to disk.
	markLost storeMark = "lost"
	// markBoot, with the boot's name behind it: what was written lately may be in the page cache of that boot only.
	markBoot = "boot "
)

// booted is the mark of a store that is written to without waiting for the disk, in a boot.
func booted(id string) storeMark { return storeMark(markBoot + id) }

// unsure reports whether what was written last may be gone, or have holes, now that the boot is the one with a name.
func (m storeMark) unsure(boot string) bool {
	return m == markLost || strings.HasPrefix(string(m), markBoot) && m != booted(boot)
}

const markName = "pgwaltz.synced"

// readMark reads the mark of a store. A mark that cannot be understood says that nothing is sure.
func readMark(dir string) (storeMark, error) {
	text, err := os.ReadFile(filepath.Join(dir, markName))
	if errors.Is(err, os.ErrNotExist) {
		return markNone, nil
	}
	if err != nil {
		return markLost, fmt.Errorf("read mark of store: %w", err)
	}
	m := storeMark(strings.TrimSpace(string(text)))
	switch {
	case m == markClean, m == markRelied, strings.HasPrefix(string(m), markBoot):
		return m, nil
	}
	return markLost, nil
}

// write replaces the mark of a store, on disk.
func (m storeMark) write(dir string) error {
	if err := m.replace(dir); err != nil {
		return fmt.Errorf("write mark of store: %w", err)
	}
	return nil
}

func (m storeMark) replace(dir string) error {
	path := filepath.Join(dir, markName)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(string(m) + "\n")
	if err == nil {
		err = f.Sync()
	}
	if end := f.Close(); err == nil {
		err = end
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncFile(dir)
	}
	return err
}
