package replicator

import (
	"encoding/binary"
	"testing"
)

func overlayKey(i int) uint64 { return keyHash(binary.BigEndian.AppendUint64(nil, uint64(i))) }

// TestOverlayBeyondItsLimit: lives are counted whatever the number of keys, and two decodings
// of one transaction agree in every mistake.
func TestOverlayBeyondItsLimit(t *testing.T) {
	t.Parallel()
	const keys = 3 * exactKeys
	var a, b overlay
	for _, o := range []*overlay{&a, &b} {
		o.reset()
		for i := range keys {
			o.set(overlayKey(i), 1)
		}
		for i := range 100 {
			o.set(overlayKey(i), 2)
			o.set(overlayKey(i), 3)
		}
	}
	wrong := 0
	for i := range 2 * keys {
		n, ok := a.raised(overlayKey(i))
		if m, okb := b.raised(overlayKey(i)); m != n || okb != ok {
			t.Fatalf("key %d: %d, %v and %d, %v", i, n, ok, m, okb)
		}
		want, changed := uint32(1), i < keys
		if i < 100 {
			want = 3
		}
		switch {
		case changed && (!ok || n < want):
			t.Fatalf("key %d was raised %d, says %d, %v", i, want, n, ok)
		case (changed && n > want) || (!changed && ok):
			wrong++
		}
	}
	if wrong > keys/50 {
		t.Errorf("%d of %d keys are taken for others", wrong, 2*keys)
	}
	a.reset()
	if a.any() {
		t.Error("another transaction begins with what the last one did")
	}
}

// TestOverlayOfManyLives: each life of a key is above the one before it, however many there are,
// and however many keys the transaction has.
func TestOverlayOfManyLives(t *testing.T) {
	t.Parallel()
	var o overlay
	o.reset()
	for i := range exactKeys + 10 {
		o.set(overlayKey(i), 1)
	}
	for i := range 3 {
		h := overlayKey(i)
		for life := range 5 * mostLevels {
			was, ok := o.raised(h)
			if !ok {
				t.Fatalf("key %d is taken for one that was not changed", i)
			}
			o.set(h, was+1) // a delete
			if now, _ := o.raised(h); now <= was {
				t.Fatalf("key %d was raised %d before life %d, and %d behind it", i, was, life, now)
			}
		}
	}
	if n, ok := o.raised(overlayKey(exactKeys)); !ok || n != 1 {
		t.Errorf("a key that was raised once says %d, %v", n, ok)
	}
	o.reset()
	o.set(overlayKey(1), 1)
	if n, _ := o.raised(overlayKey(1)); n != 1 {
		t.Errorf("another transaction begins with %d", n)
	}
}
