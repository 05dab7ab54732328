package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// flusher brings the files of one stream to disk. The server has written a message to its block when it
// acknowledges it; so what was acknowledged before sync is on disk behind it. Blocks are appended to,
// replaced as a whole, or removed, so that name, size, time and inode tell whether one has changed.
type flusher struct {
	mu   sync.Mutex
	dir  string // of the stream; "" before it was found
	dirs map[string]fs.FileInfo
	done map[string]fs.FileInfo  // files as they were when they were brought to disk last
	tail string                  // the block that is appended to
	disk func(path string) error // syncFile, but in tests
}

// put brings a file, or the names in a folder, to disk.
func (f *flusher) put(path string) error {
	if f.disk != nil {
		return f.disk(path)
	}
	return syncFile(path)
}

// settled is how old a change of a folder has to be for another one behind it to have another time.
const settled = 100 * time.Millisecond

// forget makes the next sync look at everything.
func (f *flusher) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dir, f.dirs, f.done, f.tail = "", nil, nil, ""
}

// sync brings to disk what a stream's folder holds. Errors: fs.ErrNotExist when there is none, errDisk,
// and others behind which it may be tried again.
func (f *flusher) sync(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dir != dir {
		f.dir, f.dirs, f.done, f.tail = dir, map[string]fs.FileInfo{}, map[string]fs.FileInfo{}, ""
	}
	if moved, err := f.folders(); moved || err != nil {
		return err // all files were looked at
	}
	err := fs.ErrNotExist
	if f.tail != "" {
		err = f.file(f.tail)
	}
	if errors.Is(err, fs.ErrNotExist) { // gone since the folder was looked at
		clear(f.dirs)
		_, err = f.folders()
	}
	return err
}

// folders looks at what has changed. It reports whether it has looked at the files of any folder.
func (f *flusher) folders() (moved bool, err error) {
	for _, d := range []string{f.dir, filepath.Join(f.dir, "msgs")} {
		changed, err := f.folder(d)
		if err != nil {
			return moved, err
		}
		moved = moved || changed
	}
	return moved, nil
}

// folder looks at the files of a folder, if any has come, gone or been replaced since it was looked at. It
// reports whether it did.
func (f *flusher) folder(dir string) (bool, error) {
	now, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	if was := f.dirs[dir]; was != nil && os.SameFile(was, now) && was.ModTime().Equal(now.ModTime()) {
		return false, nil
	}
	began := time.Now()
	list, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	tail := "" // a stream that was made anew begins with the first name again
	for _, e := range list {
		if !e.Type().IsRegular() || e.Name() == stateFile || filepath.Ext(e.Name()) == ".tmp" {
			continue // the state is made anew from the blocks where it does not fit them
		}
		path := filepath.Join(dir, e.Name())
		if err := f.file(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // purged meanwhile
			return false, err
		}
		if filepath.Ext(path) == ".blk" && later(path, tail) {
			tail = path
		}
	}
	if dir != f.dir {
		f.tail = tail
	}
	if err := f.put(dir); err != nil {
		return false, err
	}
	for path := range f.done {
		if filepath.Dir(path) == dir {
			if _, err := os.Lstat(path); err != nil {
				delete(f.done, path)
			}
		}
	}
	delete(f.dirs, dir)
	if began.Sub(now.ModTime()) > settled {
		f.dirs[dir] = now
	}
	return true, nil
}

// later reports whether a block comes behind another one: they are named by rising numbers.
func later(a, b string) bool {
	return len(a) > len(b) || len(a) == len(b) && a > b
}

// file brings a file to disk, unless it is the same as it was then.
func (f *flusher) file(path string) error {
	now, err := os.Stat(path)
	if err != nil {
		return err
	}
	if was := f.done[path]; was != nil && os.SameFile(was, now) && was.Size() == now.Size() && was.ModTime().Equal(now.ModTime()) && time.Since(now.ModTime()) > settled {
		return nil
	}
	if err := f.put(path); err != nil {
		return err
	}
	f.done[path] = now
	return nil
}

// stateFile is what the server notes of all blocks of a stream now and then.
const stateFile = "index.db"

// syncFile brings a file, or the names in a folder, to disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%w: %w", errDisk, err)
	}
	return nil
}

// errDisk: something that was written is not on disk, and may never be, also when the disk says nothing the next time.
var errDisk = errors.New("the disk has not taken what was written")

// syncTree brings everything below a folder to disk.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (d.IsDir() || d.Type().IsRegular()) {
			err = syncFile(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}
