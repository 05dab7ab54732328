package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// product is the binary under test, built at most once per process.
var product struct {
	once sync.Once
	room *Room
	path string
	err  error
}

// Product builds cmd/pgwaltz once and returns the path of the binary. PGWALTZ_BIN, when
// set, names a binary to use instead.
func Product() (string, error) {
	if p := os.Getenv("PGWALTZ_BIN"); p != "" {
		return filepath.Abs(p)
	}
	product.once.Do(func() { product.path, product.err = buildProduct() })
	return product.path, product.err
}

// UseProduct makes Product answer with this binary, in this process and in those that it starts; an
// empty path changes nothing.
func UseProduct(path string) error {
	if path == "" {
		return nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("find the binary to run: %w", err)
	}
	return os.Setenv("PGWALTZ_BIN", abs)
}

func buildProduct() (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	if product.room, err = NewRoom(); err != nil {
		return "", err
	}
	path := filepath.Join(product.room.Dir, "pgwaltz")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/pgwaltz")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build cmd/pgwaltz: %w: %s", err, out)
	}
	return path, nil
}

// ModuleRoot is the folder of this module's go.mod, found upwards from the working folder.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find module root: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("find module root: no go.mod above the working folder")
		}
		dir = up
	}
}

// RemoveProduct deletes the built binaries. Call it once at the end of the process.
func RemoveProduct() {
	for _, r := range []*Room{product.room, natsBinary.room} {
		if r != nil {
			_ = r.Close()
		}
	}
}
