package sim

// ledger knows every acknowledged write: what it was made over, and where.
type ledger struct {
	writes []write // by write id; 0 is nothing
}

type write struct {
	region int
	key    rowKey
	prev   int
	row    bool // a delete leaves nothing that could be lost
}

func (l *ledger) init() { l.writes = make([]write, 1, 64) }

func (l *ledger) add(region int, k rowKey, prev int, row bool) int {
	l.writes = append(l.writes, write{region, k, prev, row})
	return len(l.writes) - 1
}

// unexplained returns a write that is neither an ancestor of an end, nor deleted, nor lost
// on record; 0 when there is none.
func (l *ledger) unexplained(ends, losers []int) int {
	seen := make([]bool, len(l.writes))
	explain := func(w int) {
		for ; w != 0 && !seen[w]; w = l.writes[w].prev {
			seen[w] = true
		}
	}
	for _, w := range ends {
		explain(w)
	}
	for _, w := range losers {
		explain(w)
	}
	for w := range l.writes {
		if !l.writes[w].row {
			explain(w)
		}
	}
	for w := 1; w < len(seen); w++ {
		if !seen[w] {
			return w
		}
	}
	return 0
}
