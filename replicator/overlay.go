package replicator

import "github.com/pgwaltz/pgwaltz/conflict/tombstone"

// overlay is what the transaction at hand did to its keys so far: which it changed, and by how
// many generations it raised each. It is a function of the transaction alone, whatever process
// decodes it: hashes have no seed, and what is not exact errs the same way every time. A key
// that is taken for a changed one by mistake is given a higher generation than it needs, which
// is a stamp as good as any.
//
// Its memory is bounded: it is exact for the first exactKeys keys and a filter behind that. Keys
// that are raised beyond the last filter share one count, the highest of them.
type overlay struct {
	exact  map[uint64]uint32
	levels []*tombstone.Filter // keys that were changed, raised once, raised twice, ...
	top    uint32              // the most that a key in all filters was raised
}

const (
	exactKeys  = 1 << 16
	manyKeys   = 12 << 20 // a filter for so many keys takes 16 MiB
	fewKeys    = 1 << 20
	mostLevels = 32
)

// reset begins another transaction.
func (o *overlay) reset() {
	if o.exact == nil || len(o.exact) > 4096 {
		o.exact = map[uint64]uint32{}
	}
	clear(o.exact)
	o.levels, o.top = nil, 0
}

// any reports whether a key was changed at all.
func (o *overlay) any() bool { return len(o.exact) > 0 || len(o.levels) > 0 }

// raised is by how many generations a key was raised; not ok: it was not changed.
func (o *overlay) raised(h uint64) (n uint32, ok bool) {
	if o.levels == nil {
		n, ok = o.exact[h]
		return n, ok
	}
	for l, f := range o.levels {
		if !f.Has(h) {
			return n, ok
		}
		n, ok = uint32(l), true
	}
	return max(n, o.top), ok
}

// set notes that a key was changed, and raised by n generations in all.
func (o *overlay) set(h uint64, n uint32) {
	if o.levels != nil {
		o.add(h, n)
		return
	}
	o.exact[h] = n
	if len(o.exact) < exactKeys {
		return
	}
	o.levels = []*tombstone.Filter{}
	for k, v := range o.exact {
		o.add(k, v)
	}
	clear(o.exact)
}

func (o *overlay) add(h uint64, n uint32) {
	if n >= mostLevels {
		o.top = max(o.top, n)
	}
	for l := range min(int(n)+1, mostLevels) {
		if l == len(o.levels) {
			size := manyKeys
			if l > 1 {
				size = fewKeys
			}
			o.levels = append(o.levels, tombstone.NewFilter(size))
		}
		o.levels[l].Add(h)
	}
}

// keyHash names a row by a number, the same in every process (FNV-1a, then mixed).
func keyHash(parts ...[]byte) uint64 {
	h := uint64(14695981039346656037)
	for _, p := range parts {
		for _, c := range p {
			h = (h ^ uint64(c)) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	h ^= h >> 32
	return h
}
