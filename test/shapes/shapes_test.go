package main

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// A seed draws the same tables each time, and another one draws others.
func TestTheSeedDrawsTheTables(t *testing.T) {
	draw := func(seed uint64) string {
		r := rand.New(rand.NewPCG(seed, 0))
		var out []*table
		for n := range 10 {
			out = append(out, drawTable(r, n, kinds()))
		}
		return schemaSQL(out) + rules(out)
	}
	first, again, other := draw(1), draw(1), draw(2)
	if first != again {
		t.Error("the same seed draws other tables")
	}
	if first == other {
		t.Error("another seed draws the same tables")
	}
}

// Among a few hundred tables there is each kind of key, each way of having stamps, and each other property.
func TestEverythingIsDrawn(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 0))
	keys, stamps, has := map[string]bool{}, map[int]bool{}, map[string]bool{}
	for n := range 400 {
		x := drawTable(r, n, kinds())
		for _, k := range x.keys {
			keys[k.typ] = true
		}
		stamps[x.stamps] = true
		for name, is := range map[string]bool{
			"full": x.full, "default": !x.full, "index": strings.Contains(x.create, "using index"), "parts": x.parts, "late": x.late,
			"unique": x.unique, "generated": strings.Contains(x.create, "generated always"), "identity": strings.Contains(x.create, "as identity"),
		} {
			has[name] = has[name] || is
		}
	}
	for _, k := range kinds() {
		if k.key && !keys[k.typ] {
			t.Errorf("no key of type %s was drawn", k.typ)
		}
	}
	if len(stamps) != stampWays {
		t.Errorf("%d ways of having stamps were drawn, there are %d", len(stamps), stampWays)
	}
	for name, is := range has {
		if !is {
			t.Errorf("no table is %s", name)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-regions", "4"}, {"-keys", "10"}, {"-tables", "0"}, {"more"}, {"-nothing"}} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, &out, &errs); code != 2 || errs.Len() == 0 {
			t.Errorf("%q: code %d, %q", args, code, errs.String())
		}
	}
}
