package node

import (
	"slices"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// The first database of a peer is no other one; a later one is until something is asked for it, also when
// it is heard of again.
func TestAnotherDatabaseOfAPeer(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", PeerSchema, PeerSchema)
	first, second := Life([]byte("first")), Life([]byte("second"))
	for i, step := range []struct {
		peer, life      string
		other, provided bool
	}{
		{"eu", first, false, false},
		{"eu", first, false, false},
		{"us", second, false, false},
		{"eu", second, true, false},
		{"eu", second, true, true},
		{"eu", second, false, false},
		{"eu", first, true, false}, // its former database, or a third one
		{"us", second, false, false},
		{"ap", second, true, false}, // see below
		{"ap", second, true, true},
		{"ap", second, false, false},
		{"sa", first, false, false}, // it was provided for before it was heard of; see below
		{"sa", first, false, false},
		{"sa", second, true, false},
	} {
		if i == 8 { // it is new, and lacks everything
			if err := Lacks(ctx, c, "ap"); err != nil {
				t.Error(err)
			}
		}
		if i == 11 { // its program is older, and says nothing of its database
			for _, err := range []error{Lacks(ctx, c, "sa"), Provided(ctx, c)} {
				if err != nil {
					t.Error(err)
				}
			}
		}
		other, err := Hear(ctx, c, step.peer, step.life)
		if err != nil || other != step.other {
			t.Errorf("step %d: %t, %v", i, other, err)
		}
		if step.provided {
			if err := Provided(ctx, c); err != nil {
				t.Error(err)
			}
		}
	}
	var before, after string
	const version = `select string_agg(xmin::text || ' ' || xmax::text, ',' order by region) from pgwaltz.peer`
	if err := c.QueryRow(ctx, version).Scan(&before); err != nil {
		t.Fatal(err)
	}
	if _, err := Hear(ctx, c, "eu", first); err != nil {
		t.Error(err)
	}
	if err := c.QueryRow(ctx, version).Scan(&after); err != nil || before != after {
		t.Errorf("a life that is noted writes something: %s, %s, %v", before, after, err)
	}
}

// Where a region is no peer any more, those that are left lack what this region has of it: each time anew, and once.
func TestRegionsThatAreNoPeersAnyMore(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := pgtest.Connect(t, server.Database(t))
	pgtest.Exec(t, c, "create schema pgwaltz", PeerSchema)
	lives := map[string]string{"eu": Life([]byte("eu")), "us": Life([]byte("us")), "ap": Life([]byte("ap"))}
	for i, step := range []struct {
		peers   string
		removed string
	}{
		{"eu us", ""},
		{"eu us ap", ""},
		{"eu us", "ap"},
		{"eu us", ""},
		{"eu us ap", ""},
		{"eu ap", "us"},
		{"us", "ap eu"},
		{"ux", "us"},
		{"us", ""}, // ux was never heard
	} {
		peers := strings.Fields(step.peers)
		regions, err := Removed(ctx, c, peers)
		slices.Sort(regions)
		if err != nil || strings.Join(regions, " ") != step.removed {
			t.Errorf("step %d: %q, %v", i, regions, err)
		}
		for _, p := range peers {
			if lives[p] == "" {
				continue
			}
			if other, err := Hear(ctx, c, p, lives[p]); err != nil || other != (step.removed != "") {
				t.Errorf("step %d: %s lacks something: %t, %v", i, p, other, err)
			}
		}
		if err := Provided(ctx, c); err != nil {
			t.Error(err)
		}
	}
}

// A life is what IsLife says, two tokens have two, and it does not hold the token.
func TestLife(t *testing.T) {
	t.Parallel()
	token := []byte("0b9c6a52-6f1f-4a53-9c7e-2f1d8f2b7c11")
	life := Life(token)
	if !IsLife(life) || life != Life(token) || life == Life([]byte("another")) || strings.Contains(life, "0b9c6a52") {
		t.Errorf("life %q", life)
	}
	for _, s := range []string{"", "x", life + "00", strings.Repeat("g", 32), life[:30]} {
		if IsLife(s) {
			t.Errorf("%q can be a life", s)
		}
	}
}
