package subscribe

import (
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker"
)

func TestPacingFollowsTheLink(t *testing.T) {
	t.Parallel()
	const base = 2550 * time.Millisecond
	p := newPacing(4<<20, base)
	for range 4 {
		p.full(10 * time.Millisecond)
	}
	if p.reach.Bytes() != 4<<20 || p.pulls() != pulls {
		t.Errorf("a fast link: pulls of %d, %d at a time; want %d, %d", p.reach.Bytes(), p.pulls(), 4<<20, pulls)
	}
	for range 10 {
		p.full(5 * time.Second)
	}
	if p.reach.Bytes() != broker.MinReach || p.pulls() != 1 {
		t.Errorf("a slow link: pulls of %d, %d at a time; want %d, 1", p.reach.Bytes(), p.pulls(), broker.MinReach)
	}
	p.full(500 * time.Millisecond)
	if p.reach.Bytes() != broker.MinReach || p.pulls() != pulls {
		t.Errorf("a link of middling speed: pulls of %d, %d at a time; want %d, %d", p.reach.Bytes(), p.pulls(), broker.MinReach, pulls)
	}
	for range 9 {
		p.tooSmall()
	}
	if p.reach.Bytes() != 4<<20 {
		t.Errorf("a message that does not fit: pulls of %d, want the largest", p.reach.Bytes())
	}
	if p.size() <= 16<<20 {
		t.Errorf("a message that is larger than what may be under way: a pull of %d", p.size())
	}
	p.fitted()
	if p.size() != 4<<20 {
		t.Errorf("behind a message that is larger than what may be under way: a pull of %d", p.size())
	}
}

func TestPacingIsPatientWithASlowLink(t *testing.T) {
	t.Parallel()
	const base = 2550 * time.Millisecond
	p := newPacing(4<<20, base)
	p.silent()
	if p.patience != 4*base {
		t.Errorf("after a silent session: %s, want %s", p.patience, 4*base)
	}
	p.came(9 * time.Second)
	if p.patience != 18*time.Second {
		t.Errorf("frames that take 9 s: %s, want 18s", p.patience)
	}
	for range 20 {
		p.came(time.Millisecond)
	}
	if p.patience != base {
		t.Errorf("a link that is fast again: %s, want %s", p.patience, base)
	}
	for range 20 {
		p.silent()
	}
	if p.patience != maxPatience {
		t.Errorf("after many silent sessions: %s, want %s", p.patience, maxPatience)
	}
}
