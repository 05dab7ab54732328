package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// maxFile bounds what is read of a configuration or a secret: a wrong name may mean a disk, or a pipe without an end.
const maxFile = 4 << 20

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if len(text) > maxFile {
		err = errors.New("it is larger than 4 MiB")
	}
	return text, err
}

// Load reads the file at path (none when path is "") and the variables of env, which has
// the form of os.Environ, over the defaults, and checks the result. A configuration that is
// wrong gives an *Error with every problem.
func Load(path string, env []string) (*Config, error) {
	var text []byte
	if path != "" {
		var err error
		if text, err = read(path); err != nil {
			return nil, &Error{File: path, Problems: []Problem{{What: "cannot be read: " + reason(err),
				Remedy: "give the file with --config"}}}
		}
	}
	return parse(path, text, env)
}

func parse(path string, text []byte, env []string) (*Config, error) {
	c := Default()
	p := &problems{lines: map[string]int{}, env: map[string]string{}}
	if !decodeFile(text, c, p) {
		return nil, p.err(path)
	}
	decodeEnv(env, c, p)
	c.file, c.lines, c.env = path, p.lines, p.env
	c.derive(env)
	given := *c
	given.Peers = slices.Clone(c.Peers)
	c.given, c.sum = &given, sumOf(c.Signing.KeyFile)
	c.readSecrets(p)
	c.validate(p)
	if err := p.err(path); err != nil {
		return nil, err
	}
	return c, nil
}

// Validate checks the configuration again, for one that was made by a program. It returns
// an *Error with every problem, or nil.
func (c *Config) Validate() error {
	p := &problems{lines: c.lines, env: c.env}
	c.validate(p)
	return p.err(c.file)
}

// derive fills in what follows from other keys. systemd names a state folder.
func (c *Config) derive(env []string) {
	if c.Postgres.Slot == "" {
		c.Postgres.Slot = DefaultSlot(c.Cluster, c.Region)
	}
	// Defaults give way to explicit values that they must fit into.
	if b := &c.Publish; c.Source("publish.hold_margin") == "default" {
		b.HoldMargin = min(b.HoldMargin, b.WALHoldMax/8)
	}
	if b := &c.Publish; c.Source("publish.frame_bytes") == "default" {
		b.FrameBytes = min(b.FrameBytes, b.MaxFrame)
	}
	if c.NATS.StoreDir == "" && c.NATS.Embedded() {
		base := "/var/lib/pgwaltz"
		for _, kv := range env {
			if dir, ok := strings.CutPrefix(kv, "STATE_DIRECTORY="); ok && dir != "" {
				base, _, _ = strings.Cut(dir, ":")
			}
		}
		c.NATS.StoreDir = filepath.Join(base, c.Region, "nats")
	}
}

// DefaultSlot is the name of a region's slot. Slots are the server's, so the name holds the
// cluster too: another database of the server may belong to a region of the same name.
func DefaultSlot(cluster, region string) string {
	name := strings.ReplaceAll(originPrefix+cluster+"_"+region, "-", "_")
	if len(name) > maxSlotName {
		sum := sha256.Sum256([]byte(cluster + "/" + region))
		name = name[:maxSlotName-9] + "_" + hex.EncodeToString(sum[:4])
	}
	return name
}

const (
	maxSlotName  = 63
	originPrefix = "pgwaltz_"
)

// OriginName is the replication origin that marks rows applied from the peer. Origins are the
// server's as well.
func OriginName(cluster, peer string) string { return originPrefix + cluster + "_" + peer }

// readSecrets reads the *_file keys and completes the connection strings.
func (c *Config) readSecrets(p *problems) {
	pg := &c.Postgres
	given := pg.DSN.value
	pg.DSN = DSN{c.either(p, "postgres.dsn", pg.DSN.value, pg.DSNFile)}
	pg.dsnOfFile = pg.DSNFile != "" && pg.DSN.value != given
	pg.AdminDSN = DSN{c.either(p, "postgres.admin_dsn", pg.AdminDSN.value, pg.AdminDSNFile)}
	for i := range c.Peers {
		peer := &c.Peers[i]
		peer.DSN = DSN{c.either(p, fmt.Sprintf("peers[%d].dsn", i), peer.DSN.value, peer.DSNFile)}
	}
	pg.Password = Secret{password(p, "postgres.password", pg.Password.value, &pg.PasswordFile)}
	if !pg.DSN.IsZero() && pg.DSN.valid() && !pg.Password.IsZero() {
		pg.DSN = pg.DSN.withPassword(pg.Password)
	}
	c.NATS.Password = Secret{password(p, "nats.password", c.NATS.Password.value, &c.NATS.PasswordFile)}
}

// password takes a password of the environment, which wins over a file that the configuration file
// names, or the one in the file. path is "" behind it where the file does not count.
func password(p *problems, key, value string, path *string) string {
	switch {
	case value == "":
	case *path != "" && p.env[key+"_file"] != "":
		p.add(key+"_file", "keep one of them", "is given together with %s", p.env[key])
		return value
	default:
		*path = ""
	}
	return readFile(p, key+"_file", *path, value)
}

// either takes the value of key or the file that key_file names. Both is a mistake, unless
// one of them came from the environment, which wins.
func (c *Config) either(p *problems, key, value, path string) string {
	switch {
	case path == "" || value == "":
	case p.env[key] != "" && p.env[key+"_file"] == "":
		return value
	case p.env[key] == "" && p.env[key+"_file"] != "":
	default:
		p.add(key+"_file", "keep one of them", "is given together with %s", key)
		return value
	}
	return readFile(p, key+"_file", path, value)
}

// readFile returns the first line of the file, or other when no file is named.
func readFile(p *problems, key, path, other string) string {
	if path == "" {
		return other
	}
	line, err := firstLine(path)
	if err != nil {
		p.add(key, "make the file readable for this user", "%s cannot be read: %s", path, reason(err))
		return other
	}
	if line == "" {
		p.add(key, "write the value into its first line", "%s is empty", path)
	}
	return line
}

// firstLine is what a file of a secret holds.
func firstLine(path string) (string, error) {
	text, err := read(path)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimRight(line, "\r"), nil
}

// reason is the system's word for the failure, without the path, which stands elsewhere.
func reason(err error) string {
	if pe, ok := err.(*os.PathError); ok {
		return pe.Err.Error()
	}
	return err.Error()
}

// Keys lists the paths of all keys that a file may hold, list items as [], in order.
func Keys() []string {
	var out []string
	var walk func(t reflect.Type, path string)
	walk = func(t reflect.Type, path string) {
		for _, f := range fields(t) {
			if f.key == "" {
				continue
			}
			one, full := t.Field(f.index).Type, join(path, f.key)
			out = append(out, full)
			if one.Kind() == reflect.Slice && isSection(one.Elem()) {
				walk(one.Elem(), full+"[]")
			} else if isSection(one) {
				walk(one, full)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "")
	return out
}

// Variables maps the name of each variable of the environment to the key that it sets.
func Variables() map[string]string {
	out := map[string]string{}
	for name, v := range variables(Default()) {
		out[name] = v.key
	}
	return out
}

// File is the path that the configuration was read from; "" where the environment holds all.
func (c *Config) File() string { return c.file }

// String is a short name for logs.
func (c *Config) String() string { return fmt.Sprintf("%s/%s", c.Cluster, c.Region) }
