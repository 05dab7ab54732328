package replicator

import "sync"

// demand says whether anybody waits for something, so that who brings it about need not gather first.
// The zero value: nobody waits. Safe for concurrent use.
type demand struct {
	mu      sync.Mutex
	waiting int
	there   chan struct{} // closed while somebody waits
}

// wanted is closed as soon as somebody waits. It has to be asked for anew each time: it stays closed when
// they wait no more.
func (d *demand) wanted() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.channel()
}

func (d *demand) channel() chan struct{} {
	if d.there == nil {
		d.there = make(chan struct{})
	}
	return d.there
}

// begin counts one who waits; the function that it returns, called once, one who waits no more.
func (d *demand) begin() (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting++; d.waiting == 1 {
		close(d.channel())
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.waiting--; d.waiting == 0 {
			d.there = nil
		}
	}
}
