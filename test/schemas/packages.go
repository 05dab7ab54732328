package main

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// pack is a Debian package and the file in it that makes the schema.
type pack struct {
	name  string // of the schema here
	deb   string
	file  string // glob below the unpacked package
	least int    // tables that it makes at least: fewer, and the file is not what it was
}

// packages are the five. The package icinga-web is gone from Debian; its tables came from Icinga's
// IDO, which icinga2-ido-pgsql still makes.
var packages = []pack{
	{"pdns", "pdns-backend-pgsql", "usr/share/pdns-backend-pgsql/schema/schema.pgsql.sql", 7},
	{"roundcube", "roundcube-core", "usr/share/dbconfig-common/data/roundcube/install/pgsql", 15},
	{"icinga", "icinga2-ido-pgsql", "usr/share/icinga2-ido-pgsql/schema/pgsql.sql", 50},
	{"bacula", "bacula-director-pgsql", "usr/share/dbconfig-common/data/bacula-director-pgsql/install/pgsql", 25},
	{"zabbix", "zabbix-server-pgsql", "usr/share/zabbix-server-pgsql/schema.sql*", 150},
}

// source is the SQL of one schema.
type source struct {
	pack
	sql string
}

// fetch gets the packages and reads their schemas; done removes what it made.
func fetch(ctx context.Context, o options) (out []source, done func(), err error) {
	dir := o.packages
	done = func() {}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "schemas-"); err != nil {
			return nil, nil, fmt.Errorf("make folder for packages: %w", err)
		}
		done = func() { _ = os.RemoveAll(dir) }
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, fmt.Errorf("make folder for packages: %w", err)
	}
	for _, p := range packages {
		if !o.wants(p.name) {
			continue
		}
		s, err := p.fetch(ctx, dir)
		if err != nil {
			done()
			return nil, nil, err
		}
		out = append(out, s)
	}
	return out, done, nil
}

func (o options) wants(name string) bool {
	return len(o.only) == 0 || strings.Contains(","+strings.Join(o.only, ",")+",", ","+name+",")
}

func (p pack) fetch(ctx context.Context, dir string) (source, error) {
	tree := filepath.Join(dir, p.deb)
	if _, err := os.Stat(tree); err != nil {
		if err := p.download(ctx, dir, tree); err != nil {
			return source{}, fmt.Errorf("get package %s: %w\n"+
				"  The five schemas come from Debian packages. This needs apt-get, dpkg-deb and a Debian mirror: try `apt-get update`\n"+
				"  Without them, -only names the schemas to run, or unpack the package into %s (see -packages) by hand", p.deb, err, tree)
		}
	}
	files, err := filepath.Glob(filepath.Join(tree, p.file))
	if err != nil || len(files) == 0 {
		return source{}, fmt.Errorf("read package %s: it has no file %s", p.deb, p.file)
	}
	text, err := readText(files[0])
	if err != nil {
		return source{}, fmt.Errorf("read package %s: %w", p.deb, err)
	}
	return source{p, text}, nil
}

// download fetches a package and unpacks it into tree.
func (p pack) download(ctx context.Context, dir, tree string) error {
	tmp, err := os.MkdirTemp(dir, "deb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	get := exec.CommandContext(ctx, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", p.deb)
	get.Dir = tmp
	if said, err := get.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download: %w: %s", err, strings.TrimSpace(string(said)))
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb")) // the pattern is well formed
	if len(debs) != 1 {
		return fmt.Errorf("apt-get download left %d packages", len(debs))
	}
	fresh := filepath.Join(tmp, "tree")
	if said, err := exec.CommandContext(ctx, "dpkg-deb", "-x", debs[0], fresh).CombinedOutput(); err != nil {
		return fmt.Errorf("dpkg-deb -x: %w: %s", err, strings.TrimSpace(string(said)))
	}
	return os.Rename(fresh, tree)
}

func readText(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return "", err
		}
	}
	text, err := io.ReadAll(r)
	return string(text), err
}
