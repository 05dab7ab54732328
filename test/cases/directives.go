package cases

import (
	"regexp"
	"strings"
)

type shape int

const (
	takesNone  shape = iota // nothing below the line
	takesLines              // following lines belong to the argument
	takesBody               // SQL below the line
)

// directives is the vocabulary. What each one means is written in README.md; a test
// holds the two against each other.
var directives = map[string]shape{
	// B0
	"both": takesBody, "A": takesBody, "B": takesBody, "C": takesBody,
	"A?": takesLines, "B?": takesLines, "C?": takesLines,
	"std": takesNone, "pub": takesLines, "pubtable": takesLines, "start": takesNone, "wait": takesNone,
	"cut": takesNone, "heal": takesNone, "eq": takesLines, "audit": takesNone, "err": takesLines, "do": takesLines,
	// processes
	"setup": takesNone, "stop": takesNone, "kill": takesNone, "restart": takesNone, "crash": takesNone, "freeze": takesNone, "cont": takesNone,
	"failpoint": takesNone, "config": takesNone, "env": takesNone, "limits": takesNone, "exit": takesNone, "cli": takesNone, "resync": takesNone,
	"standby": takesNone, "rss": takesNone, "signal": takesNone, "ensure": takesNone,
	// servers
	"pg.A": takesNone, "pg.B": takesNone, "pg.C": takesNone, "nats": takesNone, "topology": takesNone, "regions": takesNone,
	"slot": takesNone, "stream": takesNone, "store": takesNone,
	// links
	"throttle": takesNone, "delay": takesNone, "lose": takesNone, "flap": takesNone, "dropacks": takesNone,
	// sessions and background work
	"session": takesLines, "load": takesLines, "poll": takesLines, "chaos": takesLines, "shuffle": takesLines, "storm": takesNone, "paired": takesNone,
	// assertions and control
	"let": takesLines, "assert": takesLines, "status": takesNone, "metric": takesNone, "log": takesNone, "pglog": takesNone,
	"http": takesNone, "pause": takesNone, "repeat": takesNone, "foreach": takesNone, "end": takesNone, "limit": takesNone, "nostart": takesNone,
}

func known(name string) (shape, bool) {
	s, ok := directives[name]
	return s, ok
}

// startsBefore are the directives before which a case without --@start is started.
var startsBefore = map[string]bool{
	"A?": true, "B?": true, "C?": true, "wait": true, "cut": true, "heal": true, "eq": true, "audit": true, "err": true, "kill": true, "stop": true,
	"restart": true, "crash": true, "freeze": true, "load": true, "poll": true, "chaos": true, "shuffle": true, "storm": true, "rss": true, "status": true, "metric": true,
	"failpoint": true, "exit": true, "throttle": true, "lose": true, "flap": true, "dropacks": true,
}

var quotedRE = regexp.MustCompile(`(?s)'(?:[^']|'')*'|\$(\w*)\$.*?\$\w*\$`)
var writeRE = regexp.MustCompile(`(?i)(?:^|;)\s*(insert|update|delete|merge|copy|truncate|begin|with|select|do|call)\b`)

// writes reports whether a section does more than define things.
func writes(sql string) bool {
	return writeRE.MatchString(quotedRE.ReplaceAllString(sql, "''"))
}

// startAt is the index of the step before which the sidecars are started when the case
// does not say so itself; -1 when it does.
func startAt(steps []Step) int {
	if mentionsStart(steps) {
		return -1
	}
	sections := 0
	for i, s := range steps {
		switch s.Name {
		case "both", "A", "B", "C", "std":
			if sections > 0 && s.Name != "std" && writes(s.Body) {
				return i
			}
			sections++
		case "repeat", "foreach":
			return i
		default:
			if startsBefore[s.Name] {
				return i
			}
		}
	}
	return len(steps)
}

func mentionsStart(steps []Step) bool {
	for _, s := range steps {
		if s.Name == "nostart" || s.Name == "start" && (s.Arg == "" || s.Arg == "nowait" || strings.HasPrefix(s.Arg, "sidecar")) || mentionsStart(s.Sub) {
			return true
		}
	}
	return false
}

// mentions reports whether any step, nested ones included, satisfies fn.
func mentions(steps []Step, fn func(Step) bool) bool {
	for _, s := range steps {
		if fn(s) || mentions(s.Sub, fn) {
			return true
		}
	}
	return false
}
