package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/wal"
)

// What a peer in hostile hands may form: messages that are sealed correctly, in its own name, and
// say what no region means.

// outlandish makes a transaction that no server wrote, in place of a captured one. It reports false
// when it does not know the shape. to is the region that reads it.
func outlandish(tx *wal.Transaction, shape, to string) bool {
	first := func() *wal.Change { return &tx.Changes[0] }
	notices := func(n int, typ func(i int) string) {
		c := first()
		for i := range n {
			e := wal.Entry{Known: true, Alive: true, Stamp: c.Stamp, Row: c.New}
			nt := wal.Notice{Relation: c.Relation, To: to, Type: typ(i), Outcome: wal.Lost, Yours: e, Mine: e}
			copy(nt.ID[:], fmt.Sprintf("%s%012d", shape[:4], i))
			tx.Notices = append(tx.Notices, nt)
		}
		tx.Changes, tx.Applied = nil, true
	}
	switch shape {
	case "notice-types":
		notices(20_000, func(i int) string { return "kind_" + strconv.Itoa(i) })
	case "notice-bytes":
		notices(1, func(int) string { return "\xff\xfe" })
	case "notice-nul":
		notices(1, func(int) string { return "a\x00b" })
	case "notice-times":
		notices(1, func(int) string { return "update_missing" })
		tx.CommitTime = math.MaxInt64 - 5
	case "late-commit":
		tx.CommitTime = math.MaxInt64 - 5
	case "early-commit":
		tx.CommitTime = math.MinInt64 + 5
	case "far-stamp":
		for i := range tx.Changes {
			tx.Changes[i].Stamp = wal.Stamp{Generation: math.MaxUint32, Version: math.MaxInt64 - 1, UpdatedAt: math.MaxInt64 - 1}
		}
	case "bad-column":
		for i := range tx.Changes {
			rel := *tx.Changes[i].Relation
			rel.Columns = slices.Clone(rel.Columns)
			rel.Columns[len(rel.Columns)-1].Name = "\xff\xfe"
			tx.Changes[i].Relation = &rel
		}
	case "bad-table":
		for i := range tx.Changes {
			rel := *tx.Changes[i].Relation
			rel.Name = "\xff\xfe"
			tx.Changes[i].Relation = &rel
		}
	case "long-table":
		for i := range tx.Changes {
			rel := *tx.Changes[i].Relation
			rel.Name = strings.Repeat("x", 1000)
			tx.Changes[i].Relation = &rel
		}
	case "bad-type":
		for i := range tx.Changes {
			rel := *tx.Changes[i].Relation
			rel.Columns = slices.Clone(rel.Columns)
			for k := range rel.Columns {
				rel.Columns[k].OID, rel.Columns[k].Type = 4_000_000_000, "no\xff.such\"type"
			}
			tx.Changes[i].Relation = &rel
		}
	case "other-key":
		for i := range tx.Changes {
			rel := *tx.Changes[i].Relation
			rel.PrimaryKey = []int{len(rel.Columns) - 1}
			tx.Changes[i].Relation = &rel
		}
	case "no-key":
		for i := range tx.Changes {
			rel := *tx.Changes[i].Relation
			rel.PrimaryKey = nil
			tx.Changes[i].Relation = &rel
		}
	case "bad-text":
		for i := range tx.Changes {
			c := &tx.Changes[i]
			c.New = slices.Clone(c.New)
			for k := range c.New {
				c.New[k] = wal.Value{Kind: wal.Text, Bytes: []byte("a\x00\xff")}
			}
		}
	case "binary":
		for i := range tx.Changes {
			c := &tx.Changes[i]
			c.New = slices.Clone(c.New)
			for k := range c.New {
				c.New[k].Kind = wal.Binary
			}
		}
	case "ask-many":
		c := first()
		for range 20_000 {
			tx.Notices = append(tx.Notices, wal.Notice{Relation: c.Relation, To: to, Outcome: wal.Wanted, Yours: wal.Entry{Known: true, Alive: true, Stamp: c.Stamp, Row: c.New}})
		}
		tx.Changes, tx.Applied = nil, true
	case "deny", "unasked":
		c := first()
		n := wal.Notice{Relation: c.Relation, To: to, Outcome: wal.Absent, Yours: wal.Entry{Known: true, Alive: true, Stamp: c.Stamp, Row: c.New}}
		if shape == "unasked" {
			n.Yours = wal.Entry{}
		}
		tx.Notices = append(tx.Notices, n)
		tx.Changes, tx.Applied = nil, true
	case "want-nothing":
		c := first()
		tx.Notices = append(tx.Notices, wal.Notice{Relation: c.Relation, To: to, Outcome: wal.Wanted})
		tx.Changes, tx.Applied = nil, true
	case "open-part":
		tx.More, tx.EndLSN = true, 0
	case "odd-part":
		tx.Part = 7
	case "messages":
		tx.Messages = append(tx.Messages, wal.Message{Transactional: true, LSN: math.MaxUint64, Prefix: "pgwaltz.tell", Content: []byte("\xff\x00")})
	case "origin":
		tx.Origin = "pgwaltz_\xff\x00"
	case "tombstones":
		for i := range tx.Changes {
			c := &tx.Changes[i]
			c.Op, c.Old, c.OldFull, c.New = wal.Delete, c.New, true, nil
			c.Stamp = wal.Stamp{Generation: math.MaxUint32, Version: math.MaxInt64, UpdatedAt: math.MaxInt64}
		}
	case "repair":
		for i := range tx.Changes {
			tx.Changes[i].Op, tx.Changes[i].Repair, tx.Changes[i].Answer = wal.Update, true, true
		}
	case "digests":
		for i := range tx.Changes {
			c := &tx.Changes[i]
			c.New = slices.Clone(c.New)
			for k := range c.New {
				if !slices.Contains(c.Relation.PrimaryKey, k) {
					c.New[k] = wal.Digested([]byte("no such value"))
				}
			}
		}
	default:
		return false
	}
	return true
}

// Said is a message of one region to another, past the sidecars: an acknowledgement or a request.
type Said struct {
	From   string
	Fields map[string]string // JSON by field; "" removes the field
}

// Acknowledge says to the owner of the stream how far From is: the newest true word of From, changed. It
// returns when the message is at the server.
func (s *Stream) Acknowledge(ctx context.Context, said Said) error {
	subject := strings.TrimSuffix(s.Subject, ".f")
	dot := strings.LastIndexByte(subject, '.')
	subject = subject[:dot] + ".ack" + subject[dot:] + "." + said.From
	sub, err := s.nc.SubscribeSync(subject)
	if err != nil {
		return fmt.Errorf("listen to acknowledgements: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	m, err := sub.NextMsgWithContext(ctx)
	if err != nil {
		return fmt.Errorf("hear an acknowledgement: %w", err)
	}
	var word map[string]json.RawMessage
	if err := json.Unmarshal(m.Data, &word); err != nil {
		return fmt.Errorf("read an acknowledgement: %w", err)
	}
	for k, v := range maps.All(said.Fields) {
		word[k] = json.RawMessage(v)
		if v == "" {
			delete(word, k)
		}
	}
	data, err := json.Marshal(word)
	if err != nil {
		return fmt.Errorf("write an acknowledgement: %w", err)
	}
	if err := s.nc.Publish(subject, data); err != nil {
		return fmt.Errorf("forge an acknowledgement: %w", err)
	}
	return s.nc.FlushWithContext(ctx)
}
