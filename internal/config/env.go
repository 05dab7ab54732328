package config

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// envPrefix begins every variable that is a setting.
const envPrefix = "PGWALTZ_"

// serviceVariable matches what Kubernetes sets for a service that is named pgwaltz-something.
func serviceVariable(name string) bool {
	return regexp.MustCompile(`_SERVICE_(HOST|PORT.*)$|_PORT(_[0-9]+_.*)?$`).MatchString(name)
}

// decodeEnv reads settings from the environment over c. A variable of a known section that
// names no key, or that is all but the name of one, is refused, as in the file; others with the
// prefix are left to other uses.
func decodeEnv(env []string, c *Config, p *problems) {
	table := variables(c)
	for _, kv := range env {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || !strings.HasPrefix(name, envPrefix) {
			continue
		}
		t, ok := table[name]
		if !ok {
			near := nearest(name, names(table))
			if (sectionOf(name) || near != "") && !serviceVariable(name) {
				p.env[name] = name
				remedy := "unset it"
				if near != "" {
					remedy = "did you mean " + near + "?"
				}
				p.list = append(p.list, Problem{Env: name, What: "unknown setting", Remedy: remedy})
			}
			continue
		}
		p.env[t.key] = name
		p.text(t.key, t.v, value)
	}
}

// text stores a variable's value; lists are separated by commas.
func (p *problems) text(key string, v reflect.Value, value string) {
	if v.Kind() != reflect.Slice {
		if err := setText(v, value); err != nil {
			p.add(key, "", "%v", err)
		}
		return
	}
	list := reflect.MakeSlice(v.Type(), 0, 4)
	for item := range strings.SplitSeq(value, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		one := reflect.New(v.Type().Elem()).Elem()
		target := one
		if peer, ok := one.Addr().Interface().(*Peer); ok { // us or us=<public key>
			item, peer.PublicKey, _ = strings.Cut(item, "=")
			target = one.Field(0)
		}
		if err := setText(target, item); err != nil {
			p.add(key, "", "%v", err)
		}
		list = reflect.Append(list, one)
	}
	v.Set(list)
}

type variable struct {
	key string
	v   reflect.Value
}

// variables maps the names of all variables to the fields that they set. Rules cannot be
// given in the environment.
func variables(c *Config) map[string]variable {
	out := map[string]variable{}
	var walk func(v reflect.Value, name, key string)
	walk = func(v reflect.Value, name, key string) {
		for _, f := range fields(v.Type()) {
			last := f.key
			if last == "" {
				last = strings.ToLower(f.env)
			}
			one, full, path := v.Field(f.index), name+f.env, join(key, last)
			switch {
			case isSection(one.Type()):
				walk(one, full+"_", path)
			case one.Type() == reflect.TypeFor[[]Rule]():
			default:
				out[full] = variable{path, one}
			}
		}
	}
	walk(reflect.ValueOf(c).Elem(), envPrefix, "")
	return out
}

func names(m map[string]variable) []string {
	out := make([]string, 0, len(m))
	for n := range m {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// sectionOf reports whether the variable's name begins like a section's.
func sectionOf(name string) bool {
	t := reflect.TypeFor[Config]()
	for _, f := range fields(t) {
		if isSection(t.Field(f.index).Type) && strings.HasPrefix(name, envPrefix+f.env+"_") {
			return true
		}
	}
	return false
}
