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
