package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// lookAtStore tries whether the embedded server could keep its stream there. running says that a
// sidecar has the store open now.
func lookAtStore(c *Config) (out []Probe, running bool) {
	const about = "nats.store_dir"
	dir := c.StoreDir
	info, err := os.Stat(dir)
	for errors.Is(err, os.ErrNotExist) && filepath.Dir(dir) != dir {
		dir = filepath.Dir(dir)
		info, err = os.Stat(dir)
	}
	switch {
	case err != nil:
		return []Probe{{about, Fails, fmt.Sprintf("%s: %v", dir, reasonOf(err)), "make the folder, readable and writable for the user of the sidecar"}}, false
	case !info.IsDir():
		return []Probe{{about, Fails, dir + " is no folder", "name another path, or remove the file"}}, false
	}
	f, err := os.CreateTemp(dir, ".pgwaltz-check-*")
	if err != nil {
		return []Probe{{about, Fails, fmt.Sprintf("%s cannot be written to: %v", dir, reasonOf(err)), "give the user of the sidecar a folder that it may write to, with free space"}}, false
	}
	_ = f.Close()
	_ = os.Remove(f.Name())
	if dir != c.StoreDir {
		out = append(out, Probe{about, Works, fmt.Sprintf("%s can be made in %s", c.StoreDir, dir), ""})
	} else if running = inUse(c.StoreDir); running {
		out = append(out, Probe{about, Works, c.StoreDir + " is in use: a sidecar of this region runs here", ""})
	} else {
		out = append(out, Probe{about, Works, c.StoreDir + " can be written to", ""})
	}
	held := stored(c.StoreDir)
	if free, ok := freeBytes(dir); ok && free+held < c.MaxBytes {
		out = append(out, Probe{about, Doubtful, fmt.Sprintf("%d MiB are free or in use by the stream, and nats.max_bytes lets it grow to %d MiB", (free+held)>>20, c.MaxBytes>>20), "free some space, or lower nats.max_bytes"})
	}
	return out, running
}

// inUse reports whether another process has the store open. It creates nothing.
func inUse(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, lockName)); err != nil {
		return false
	}
	lock, err := lockStore(dir)
	if err != nil {
		return errors.Is(err, ErrStoreInUse)
	}
	_ = lock.Close()
	return false
}

// stored is how many bytes the store holds now.
func stored(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // what cannot be read counts as nothing
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}

// lookAtListener tries whether the address could be listened on.
func lookAtListener(c *Config, running bool) Probe {
	const about = "nats.listen"
	l, err := net.Listen("tcp", c.Listen)
	switch {
	case running && errors.Is(err, syscall.EADDRINUSE):
		return Probe{about, Works, c.Listen + " belongs to the sidecar that runs", ""}
	case errors.Is(err, syscall.EADDRINUSE):
		return Probe{about, Fails, c.Listen + " is taken by another program", "end it, or choose another port; where it is this region's sidecar, give http.listen a port, so that it is found"}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return Probe{about, Fails, c.Listen + " is no address of this machine", "listen on an address that it has, or on 0.0.0.0"}
	case errors.Is(err, os.ErrPermission):
		return Probe{about, Fails, c.Listen + " may not be listened on by this user", "choose a port above 1023"}
	case err != nil:
		return Probe{about, Fails, c.Listen + " cannot be listened on: " + err.Error(), "write host:port of this machine"}
	}
	_ = l.Close()
	if _, port, _ := net.SplitHostPort(c.Listen); running && port != "0" {
		return Probe{about, Doubtful, "the sidecar that runs does not listen on " + c.Listen, "restart it, so that it takes the configuration"}
	}
	return Probe{about, Works, c.Listen + " can be listened on; the peers dial it", ""}
}

func reasonOf(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// lockName is the file in the store that the process which has it open keeps locked.
const lockName = "pgwaltz.lock"
