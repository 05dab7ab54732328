package main

import (
	"fmt"
	"html"
	"strings"
)

// svg is a picture that is written from top to bottom. Coordinates are pixels.
type svg struct {
	b             strings.Builder
	width, height float64
}

func newSVG(width, height float64) *svg {
	s := &svg{width: width, height: height}
	fmt.Fprintf(&s.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&s.b, `<rect width="%g" height="%g" fill="#ffffff"/>`+"\n", width, height)
	return s
}

// text writes words; anchor is start, middle or end.
func (s *svg) text(x, y float64, anchor, words string) {
	fmt.Fprintf(&s.b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="#222222">%s</text>`+"\n", x, y, anchor, html.EscapeString(words))
}

func (s *svg) rect(x, y, width, height float64, color string) {
	fmt.Fprintf(&s.b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, width, height, color)
}

// line draws from one point to another; dash is empty for a whole line.
func (s *svg) line(x1, y1, x2, y2 float64, color, dash string) {
	more := ""
	if dash != "" {
		more = ` stroke-dasharray="` + dash + `"`
	}
	fmt.Fprintf(&s.b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"%s/>`+"\n", x1, y1, x2, y2, color, more)
}

// dot is filled, or a ring.
func (s *svg) dot(x, y float64, color string, filled bool) {
	fill := "#ffffff"
	if filled {
		fill = color
	}
	fmt.Fprintf(&s.b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s" stroke="%s"/>`+"\n", x, y, fill, color)
}

func (s *svg) String() string { return s.b.String() + "</svg>\n" }

// Colors of the contenders, told apart by those as well who see no red or green.
var colors = map[string]string{"native": "#0072b2", "pglogical": "#e69f00", "pgwaltz": "#009e73", before: "#cc79a7"}

const (
	gray  = "#bbbbbb"
	black = "#222222"
)
