package wire

import "fmt"

// Assembler puts the fragments of packets together. Feed it frames that the checkpoint found
// to fit, in order. It belongs to one goroutine.
type Assembler struct {
	max       uint64
	relations *RelationCache

	buf     []byte
	next    Header // the fragment that is due: identity and place of the open packet
	pending bool
}

// NewAssembler returns an assembler that refuses packets above maxPacket bytes (0 means
// DefaultMaxPacket). relations may be nil.
func NewAssembler(maxPacket int, relations *RelationCache) *Assembler {
	if maxPacket <= 0 {
		maxPacket = DefaultMaxPacket
	}
	return &Assembler{max: uint64(maxPacket), relations: relations}
}

// Add takes the next frame and returns the packet that it completes, or nil. A frame with
// First abandons an unfinished packet: its writer died between two fragments and begins
// anew, and no position depended on it. Values of the packet point into the frame's payload,
// or for a packet of several fragments into memory of their own.
//
// Errors: ErrFragment, ErrTooLarge, ErrMalformed; the open packet is dropped.
func (a *Assembler) Add(f *RawFrame) (*Packet, error) {
	p, err := a.add(f)
	if err != nil {
		a.Reset()
		return nil, fmt.Errorf("assemble frame %s: %w", f.MsgID(), err)
	}
	return p, nil
}

// Pending reports whether a packet is unfinished: the checkpoint must not move now.
func (a *Assembler) Pending() bool { return a.pending }

// Reset drops an unfinished packet, after a reconnect that reads from the checkpoint again.
func (a *Assembler) Reset() { a.buf, a.next, a.pending = nil, Header{}, false }

func (a *Assembler) add(f *RawFrame) (*Packet, error) {
	if f.PacketSize > a.max {
		return nil, fmt.Errorf("%w: packet of %d bytes, the limit is %d", ErrTooLarge, f.PacketSize, a.max)
	}
	if f.Flags.Has(First) {
		a.Reset()
		if f.Flags.Has(Last) {
			return a.parse(f, f.Payload)
		}
	} else if err := a.continues(f); err != nil {
		return nil, err
	}
	if uint64(len(a.buf)+len(f.Payload)) > f.PacketSize {
		return nil, fmt.Errorf("%w: more bytes than the packet has", ErrFragment)
	}
	a.grow(len(f.Payload), int(f.PacketSize))
	a.buf = append(a.buf, f.Payload...)
	if !f.Flags.Has(Last) {
		a.next, a.pending = f.Header, true
		a.next.Number++
		a.next.Fragment++
		return nil, nil
	}
	if uint64(len(a.buf)) != f.PacketSize {
		return nil, fmt.Errorf("%w: %d bytes of %d", ErrFragment, len(a.buf), f.PacketSize)
	}
	whole := a.buf
	a.Reset() // the packet owns the buffer from here
	return a.parse(f, whole)
}

func (a *Assembler) continues(f *RawFrame) error {
	n := &a.next
	switch {
	case !a.pending:
		return fmt.Errorf("%w: fragment %d without a beginning", ErrFragment, f.Fragment)
	case f.Origin != n.Origin, f.Epoch != n.Epoch, f.Incarnation != n.Incarnation,
		f.Number != n.Number, f.Fragment != n.Fragment, f.Kind != n.Kind, f.PacketSize != n.PacketSize:
		return fmt.Errorf("%w: fragment %d came, %d of frame %d was due", ErrFragment, f.Fragment, n.Fragment, n.Number)
	}
	return nil
}

// grow makes room for n bytes more. Memory follows what has come, not what was announced:
// at most four times as much, and never more than the packet.
func (a *Assembler) grow(n, packet int) {
	need := len(a.buf) + n
	if need <= cap(a.buf) {
		return
	}
	buf := make([]byte, len(a.buf), min(max(need, 4*cap(a.buf)), packet))
	copy(buf, a.buf)
	a.buf = buf
}

func (a *Assembler) parse(f *RawFrame, payload []byte) (*Packet, error) {
	p, err := a.relations.ParsePacket(payload)
	if err != nil {
		return nil, err
	}
	if len(p.Transactions) != int(f.Transactions) || p.Changes() != int(f.Changes) {
		return nil, malformed("header counts %d transactions and %d changes, the packet holds %d and %d",
			f.Transactions, f.Changes, len(p.Transactions), p.Changes())
	}
	return p, nil
}
