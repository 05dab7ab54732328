package wire

import (
	"fmt"
	"hash/crc32"
	"math"

	"github.com/pgwaltz/pgwaltz/wal"
)

// A transaction on its own, as parked.event keeps it: magic, version, CRC-32C, payload.
const (
	txMagic = "PGWT"
	txHead  = 9
)

// EncodeTransaction encodes one transaction with its relations, to be kept in a table; it
// outlives upgrades by carrying the format version. Errors: ErrMalformed.
func EncodeTransaction(tx *wal.Transaction) ([]byte, error) {
	// One piece of memory, since values may be large.
	size := tx.Size()
	whole := make([]byte, txHead, txHead+size+size/16+1024)
	p := builder{buf: whole[txHead:]}
	if err := p.add(tx, math.MaxInt); err != nil {
		return nil, err
	}
	payload := p.finish()
	b := append(whole[:0], txMagic...)
	b = append(b, Version)
	b = be.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	if cap(payload) == cap(whole)-txHead {
		return whole[:txHead+len(payload)], nil // it stands behind already
	}
	return append(b[:txHead:txHead], payload...), nil
}

// ParseTransaction reads what EncodeTransaction wrote. The values point into
// data. Errors: ErrNotFrame, ErrTruncated, ErrVersion, ErrCRC, ErrMalformed.
func ParseTransaction(data []byte) (*wal.Transaction, error) {
	p, err := parseTransaction(data)
	if err != nil {
		return nil, fmt.Errorf("parse transaction: %w", err)
	}
	return p.Transactions[0], nil
}

func parseTransaction(data []byte) (*Packet, error) {
	switch {
	case len(data) < len(txMagic) || string(data[:len(txMagic)]) != txMagic:
		return nil, ErrNotFrame
	case len(data) <= txHead:
		return nil, ErrTruncated
	case data[4] != Version:
		return nil, &VersionError{Got: data[4]}
	case crc32.Checksum(data[txHead:], castagnoli) != be.Uint32(data[5:]):
		return nil, ErrCRC
	}
	p, err := ParsePacket(data[txHead:])
	if err != nil {
		return nil, err
	}
	if len(p.Transactions) != 1 {
		return nil, malformed("%d transactions", len(p.Transactions))
	}
	return p, nil
}

// ParseChange reads a transaction of one change: the change, and the transaction around it.
func ParseChange(data []byte) (*wal.Transaction, *wal.Change, error) {
	tx, err := ParseTransaction(data)
	if err != nil {
		return nil, nil, err
	}
	if len(tx.Changes) != 1 {
		return nil, nil, fmt.Errorf("parse change: %w", malformed("%d changes", len(tx.Changes)))
	}
	return tx, &tx.Changes[0], nil
}
