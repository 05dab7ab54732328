package demo

import "strings"

// ink is how a piece of text looks on the terminal.
type ink byte

const (
	plain ink = iota
	bold
	dim
	red
	green
	yellow
	cyan    // the first direction
	magenta // the second direction
	alarm   // white on red
	cutBack // the background of the time in which the link was cut
	cyanCut
	magentaCut
)

// sgr are the numbers that select an ink. Those of the cut have a dark red background.
var sgr = [...]string{plain: "0", bold: "1", dim: "2", red: "31", green: "32", yellow: "33", cyan: "36", magenta: "35", alarm: "1;37;41",
	cutBack: "2;37;48;5;52", cyanCut: "36;48;5;52", magentaCut: "35;48;5;52"}

// wayInk is the colour of a direction, behind it the cut or not.
func wayInk(way int, cut bool) ink {
	return [2][2]ink{{cyan, magenta}, {cyanCut, magentaCut}}[b2i(cut)][way]
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// span is text of one ink, line is one line of the screen. Every rune takes one column.
type span struct {
	ink  ink
	text string
}

type line []span

// text is the line without colour.
func (l line) text() string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(s.text)
	}
	return b.String()
}

func (l line) width() (n int) {
	for _, s := range l {
		n += len([]rune(s.text))
	}
	return n
}

// fit cuts the line after so many columns, so that it does not wrap.
func (l line) fit(columns int) line {
	out := line{}
	for _, s := range l {
		r := []rune(s.text)
		if len(r) > columns {
			return append(out, span{s.ink, string(r[:max(columns, 0)])})
		}
		out = append(out, s)
		columns -= len(r)
	}
	return out
}

// pad adds spaces up to so many columns.
func (l line) pad(columns int) line {
	if n := columns - l.width(); n > 0 {
		return append(l, span{plain, strings.Repeat(" ", n)})
	}
	return l
}

// paint is the line with its colours, and back to none at its end.
func (l line) paint() string {
	var b strings.Builder
	now := plain
	for _, s := range l {
		if s.text == "" {
			continue
		}
		if s.ink != now {
			b.WriteString("\x1b[0m")
			if s.ink != plain {
				b.WriteString("\x1b[" + sgr[s.ink] + "m")
			}
			now = s.ink
		}
		b.WriteString(s.text)
	}
	if now != plain {
		b.WriteString("\x1b[0m")
	}
	return b.String()
}
