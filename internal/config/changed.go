package config

import (
	"crypto/sha256"
	"os"
	"reflect"
)

// Changed reads the file anew and returns the keys, in their order, that have another value than c
// has, or whose file is read at the start alone. They take effect with the next start. Keys of a list of sections count as one. Passwords
// and connection strings in files that it names do not count: those are read for every connection.
// The error is that of Load. c must come from Load.
func (c *Config) Changed(env []string) ([]string, error) {
	now, err := Load(c.file, env)
	if err != nil {
		return nil, err
	}
	out := differing(reflect.ValueOf(*c.given), reflect.ValueOf(*now.given), "")
	if c.Signing == now.Signing && c.sum != now.sum {
		out = append(out, "signing.key_file")
	}
	return out, nil
}

// differing walks the sections.
func differing(a, b reflect.Value, path string) (out []string) {
	for _, f := range fields(a.Type()) {
		if f.key == "" {
			continue // of the environment, which does not change
		}
		x, y, full := a.Field(f.index), b.Field(f.index), join(path, f.key)
		switch {
		case isSection(x.Type()):
			out = append(out, differing(x, y, full)...)
		case !reflect.DeepEqual(x.Interface(), y.Interface()):
			out = append(out, full)
		}
	}
	return out
}

// sumOf is the checksum of a file; that of nothing where it cannot be read.
func sumOf(path string) [sha256.Size]byte {
	if path == "" {
		return [sha256.Size]byte{}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(text)
}
