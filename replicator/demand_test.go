package replicator

import "testing"

// demand is there from the first who waits to the last.
func TestDemandIsThereWhileAnybodyWaits(t *testing.T) {
	t.Parallel()
	var d demand
	is := func(want bool, when string) {
		t.Helper()
		got := false
		select {
		case <-d.wanted():
			got = true
		default:
		}
		if got != want {
			t.Errorf("%s: wanted is %t", when, got)
		}
	}
	is(false, "at first")
	before := d.wanted()
	one := d.begin()
	is(true, "with one")
	select {
	case <-before:
	default:
		t.Error("who asked before is not told")
	}
	two := d.begin()
	one()
	is(true, "with the second")
	two()
	is(false, "without anybody")
	three := d.begin()
	is(true, "with a third")
	three()
}
