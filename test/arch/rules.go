package arch

import (
	"regexp"
	"slices"
	"strings"
)

// rule finds what must not be in one file.
type rule struct {
	name string
	why  string
	find func(*file) []string
}

// pure are the rooms without I/O, clock and goroutines, and what they may import of ours.
// Their subfolders (conflict/audit, checkpoint/pgstore, ...) are rooms of their own.
var pure = map[string][]string{
	"wal":        {},
	"decoder":    {"wal"},
	"conflict":   {"wal"},
	"checkpoint": {"wal"},
	"wire":       {"wal"},

	"sink/apply/batch":     {"wal", "conflict"},
	"sink/apply/statement": {"wal"},
	"replicator/framing":   {"wal", "wire", "checkpoint"},
}

// impure are the standard packages that reach outside of the process.
var impure = []string{"os", "net", "syscall", "database/sql", "log", "log/slog", "io/fs", "io/ioutil", "plugin"}

// outside are the modules that a pure room may use: parsers and compressors, no connections.
var outside = []string{"github.com/jackc/pglogrepl", "github.com/klauspost/compress/s2", "github.com/jackc/pgx/v5"}

// level orders the rooms: a room imports only what is below it. Equal levels do not import
// each other. A folder without an entry has the level of the one that it is in.
var level = map[string]int{
	"wal":                    1,
	"decoder":                2,
	"conflict":               2,
	"checkpoint":             2,
	"wire":                   2,
	"internal/visible":       1,
	"internal/status":        2,
	"conflict/audit":         3,
	"conflict/tombstone":     3,
	"checkpoint/pgstore":     3,
	"conflict/parked":        3,
	"conflict/counterpart":   3,
	"checkpoint/streamstore": 3,
	"sink/apply/batch":       3,
	"sink/apply/statement":   3,
	// Adapters to the outside stand below the pipes.
	"adapter/failpoint":           2,
	"adapter/rowkey":              4,
	"adapter/pg":                  3,
	"adapter/broker":              4,
	"adapter/broker/brokertest":   5,
	"source/slot":                 5,
	"source/subscribe":            5,
	"source/subscribe/quarantine": 6,
	"source/complete":             5,
	"source/copy":                 5,
	"source/poll":                 5,
	"source/names":                5,
	"source/publication":          6,
	"sink/publish":                5,
	"sink/apply":                  5,
	"replicator":                  6,
	"replicator/framing":          3,
	"adapter/pause":               2,
	"adapter/guard":               2,
	"adapter/proxy":               2,
	// The upper floor: what decides, shows and wires.
	"internal/config":       3,
	"internal/lead":         4,
	"internal/node":         4,
	"internal/keys":         6,
	"internal/preflight":    7,
	"internal/admin":        7,
	"internal/pgsync":       8,
	"internal/fallback":     8,
	"internal/cutover/hold": 8,
	"internal/sidecar":      9,
	"internal/pgcluster":    3,
	// What a fallback mode does stands beside the sidecar: neither knows the other.
	"internal/fallback/native":    9,
	"internal/fallback/pglogical": 10,
	"internal/demo":               10,
	"internal/supervisor":         11,
	"internal/cutover":            11,
	"cmd/pgwaltz":                 12,
	"test":                        13,
}

// upper are the rooms of internal that stand above the pipes; the pipes and the adapters
// below them must not know these.
var upper = []string{"internal/config", "internal/keys", "internal/lead", "internal/node", "internal/preflight", "internal/admin", "internal/fallback", "internal/cutover", "internal/supervisor", "internal/sidecar", "internal/pgsync", "internal/pgcluster", "internal/demo"}

// owner is the room that has the DDL and the statements of each table of schema pgwaltz.
var owner = map[string]string{
	"absence":          "source/copy",
	"checkpoint":       "checkpoint/pgstore",
	"clock":            "conflict/tombstone",
	"conflict":         "conflict/audit",
	"copy":             "source/copy",
	"cutover":          "internal/cutover/hold",
	"cutover_sequence": "internal/cutover",
	"home":             "internal/node",
	"horizon":          "conflict/tombstone",
	"lead":             "internal/lead",
	"ledger":           "conflict/tombstone",
	"name":             "source/names",
	"naming":           "source/names",
	"counterpart":      "conflict/counterpart",
	"mode":             "internal/fallback",
	"node":             "internal/node",
	"parked":           "conflict/parked",
	"partition":        "source/copy",
	"peer":             "internal/node",
	"poll":             "source/poll",
	"poll_stage":       "source/poll",
	"past":             "conflict/tombstone",
	"quarantine":       "source/subscribe/quarantine",
	"left_out":         "source/subscribe/quarantine",
	"stream":           "checkpoint/streamstore",
	"tombstone":        "conflict/tombstone",
	"tracked":          "conflict/tombstone",
	"unread":           "source/copy",
}

// sideTable finds a table of schema pgwaltz in a statement.
var sideTable = regexp.MustCompile(`(?i)\b(?:from|into|update|join|table|exists|on|only)\s+pgwaltz\.([a-z_]+)`)

// pipes are the rooms between the two floors.
var pipes = []string{"source", "sink", "replicator"}

func levelOf(room string) (int, bool) {
	for r := room; r != ""; {
		if l, ok := level[r]; ok {
			return l, true
		}
		i := strings.LastIndexByte(r, '/')
		if i < 0 {
			break
		}
		r = r[:i]
	}
	return 0, false
}

// under reports whether path is pkg or in it.
func under(path, pkg string) bool { return path == pkg || strings.HasPrefix(path, pkg+"/") }

// ours returns the room of an import path of this module.
func ours(path string) (string, bool) {
	return strings.CutPrefix(path, module+"/")
}

var rules = []rule{
	{"pure rooms do no I/O",
		"they run in the simulation and under fuzzing, where every run must be repeatable",
		func(f *file) (out []string) {
			allowed, ok := pure[f.room]
			if !ok {
				return nil
			}
			for _, p := range f.imports {
				room, own := ours(p)
				switch {
				case own && !slices.Contains(allowed, room):
					out = append(out, f.name+" imports "+p)
				case !own && strings.Contains(strings.SplitN(p, "/", 2)[0], ".") && !slices.Contains(outside, p):
					out = append(out, f.name+" imports "+p)
				case !own && slices.ContainsFunc(impure, func(s string) bool { return under(p, s) }):
					out = append(out, f.name+" imports "+p)
				}
			}
			return out
		}},
	{"pure rooms read no clock",
		"time is an argument there, or a decision would depend on when it is made",
		func(f *file) []string {
			if _, ok := pure[f.room]; !ok {
				return nil
			}
			return f.uses("time", "Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker")
		}},
	{"pure rooms start no goroutines",
		"their values belong to one goroutine each, the caller's",
		func(f *file) []string {
			if _, ok := pure[f.room]; !ok {
				return nil
			}
			return f.goroutines()
		}},
	{"pure rooms draw no random numbers",
		"two regions must come to the same verdict",
		func(f *file) (out []string) {
			if _, ok := pure[f.room]; !ok {
				return nil
			}
			for _, p := range f.imports {
				if p == "math/rand" || p == "math/rand/v2" || p == "crypto/rand" {
					out = append(out, f.name+" imports "+p)
				}
			}
			return out
		}},
	{"imports point downwards",
		"a room can be understood, tested and replaced with what is below it only",
		func(f *file) (out []string) {
			from, ok := levelOf(f.room)
			if !ok {
				return []string{f.name + " is in a room without a place in the order; give it one in test/arch/rules.go"}
			}
			for _, p := range f.imports {
				room, own := ours(p)
				if !own || room == f.room {
					continue
				}
				to, ok := levelOf(room)
				if !ok || to > from || to == from && from < level["test"] {
					out = append(out, f.name+" imports "+room+", which is not below it")
				}
			}
			return out
		}},
	{"pipes and adapters do not know the upper floor",
		"wiring, checks and screens depend on the pipes, never the other way round",
		func(f *file) (out []string) {
			in := func(rooms []string, p string) bool {
				return slices.ContainsFunc(rooms, func(r string) bool { return under(p, r) })
			}
			if !in(pipes, f.room) && !under(f.room, "adapter") {
				return nil
			}
			for _, p := range f.imports {
				if room, own := ours(p); own && in(upper, room) {
					out = append(out, f.name+" imports "+p)
				}
			}
			return out
		}},
	{"only cmd ends the process",
		"elsewhere it would skip the stop order: the slot, the stream and the commit in flight",
		func(f *file) []string {
			if under(f.room, "cmd") || under(f.room, "test") || f.room == "adapter/failpoint" {
				return nil // a failpoint is there to kill
			}
			return append(f.uses("os", "Exit"), f.uses("log", "Fatal", "Fatalf", "Fatalln")...)
		}},
	{"only cmd traps signals",
		"two listeners would race for the second signal, which must end the process at once",
		func(f *file) (out []string) {
			if under(f.room, "cmd") || under(f.room, "test") {
				return nil
			}
			return f.uses("os/signal", "Notify", "NotifyContext", "Ignore", "Reset")
		}},
	{"statements of a side table are in the room that owns it",
		"a table whose columns change is found in one place",
		func(f *file) (out []string) {
			if under(f.room, "test") || f.room == "internal/demo" {
				return nil // they ask as an outsider does, to judge
			}
			for _, text := range f.texts() {
				for _, m := range sideTable.FindAllStringSubmatch(text.text, -1) {
					switch room, ok := owner[m[1]]; {
					case !ok:
						out = append(out, text.at+" names pgwaltz."+m[1]+", which has no owner; give it one in test/arch/rules.go")
					case room != f.room:
						out = append(out, text.at+" names pgwaltz."+m[1]+", which belongs to "+room)
					}
				}
			}
			return out
		}},
	{"the product does not import tests",
		"what only tests need must not be in the binary",
		func(f *file) (out []string) {
			if under(f.room, "test") || strings.HasSuffix(f.room, "test") {
				return nil
			}
			for _, p := range f.imports {
				if room, own := ours(p); p == "testing" || own && under(room, "test") {
					out = append(out, f.name+" imports "+p)
				}
			}
			return out
		}},
}

// check holds all files against all rules.
func check(files []file) map[string][]string {
	out := map[string][]string{}
	for _, r := range rules {
		for i := range files {
			out[r.name] = append(out[r.name], r.find(&files[i])...)
		}
		slices.Sort(out[r.name])
	}
	return out
}
