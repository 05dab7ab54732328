package cases

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/pgwaltz/pgwaltz/test/harness"
	"github.com/pgwaltz/pgwaltz/wal"
)

// publishBad reads `<hex>` or `@kind`: empty, random, truncated, json, nested, gzip, type.
func publishBad(ctx context.Context, st *harness.Stream, f []string) error {
	if len(f) == 0 {
		return errors.New("publish to stream: what?")
	}
	h := nats.Header{}
	var data []byte
	switch f[0] {
	case "@empty":
	case "@random":
		rnd := rand.New(rand.NewPCG(1, 2))
		data = make([]byte, 500)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
	case "@truncated":
		msgs, err := st.Messages(ctx, 1)
		if err != nil {
			return err
		}
		if len(msgs) == 0 {
			return errors.New("publish truncated message: the stream is empty")
		}
		m := msgs[len(msgs)-1].Data
		data = m[:len(m)*2/3]
	case "@json":
		data = []byte(`{"kind":"insert","table":"se","row":{"id":666}}`)
	case "@nested":
		data = bytes.Repeat([]byte("["), 900_000)
	case "@gzip":
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		zeros := make([]byte, 1<<20)
		for range 256 {
			if _, err := z.Write(zeros); err != nil {
				return fmt.Errorf("make gzip bomb: %w", err)
			}
		}
		if err := z.Close(); err != nil {
			return fmt.Errorf("make gzip bomb: %w", err)
		}
		data = b.Bytes()
		h.Set("Content-Encoding", "gzip")
	case "@type":
		data = []byte("<row id='666'/>")
		h.Set("Content-Type", "application/xml")
	default:
		var err error
		if data, err = hex.DecodeString(f[0]); err != nil {
			return fmt.Errorf("read message: want hex or @kind: %w", err)
		}
	}
	return st.Publish(ctx, data, h)
}

// replay reads `first N`, `last N` or `all`, and optionally `flip` (one bit in the middle).
func replay(ctx context.Context, st *harness.Stream, f []string) error {
	msgs, err := st.Messages(ctx, 1)
	if err != nil {
		return err
	}
	var change func([]byte) []byte
	if len(f) > 0 && f[len(f)-1] == "flip" {
		change = func(b []byte) []byte {
			b[len(b)/2] ^= 1
			return b
		}
		f = f[:len(f)-1]
	}
	switch {
	case len(f) == 1 && f[0] == "all":
	case len(f) == 2 && (f[0] == "first" || f[0] == "last"):
		n, err := strconv.Atoi(f[1])
		if err != nil {
			return fmt.Errorf("read count: %w", err)
		}
		n = min(n, len(msgs))
		if f[0] == "first" {
			msgs = msgs[:n]
		} else {
			msgs = msgs[len(msgs)-n:]
		}
	default:
		return errors.New("replay messages: want first N, last N or all, and flip to change one bit")
	}
	return st.Replay(ctx, msgs, change)
}

// forge reads key=value options: value, origin, cluster, relation, version, shape, incarnation, system,
// end, and the words next and resync.
func forge(ctx context.Context, st *harness.Stream, to string, f []string) error {
	o := harness.Forgery{To: to}
	for _, opt := range f {
		k, v, _ := strings.Cut(opt, "=")
		v = strings.ReplaceAll(v, "+", " ")
		switch k {
		case "value":
			o.Value = v
		case "origin":
			o.Origin = v
		case "cluster":
			o.Cluster = v
		case "relation":
			o.Relation = v
		case "version":
			n, err := strconv.ParseUint(v, 10, 8)
			if err != nil {
				return fmt.Errorf("read version: %w", err)
			}
			o.Version = byte(n)
		case "shape":
			o.Shape = v
		case "incarnation", "system", "end":
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				return fmt.Errorf("read %s: %w", k, err)
			}
			switch k {
			case "incarnation":
				o.Incarnation = uint32(n)
			case "system":
				o.System = n
			default:
				o.End = wal.LSN(n)
			}
		case "resync":
			o.Resync = true
		case "next":
			o.Next = true
		default:
			return fmt.Errorf("forge message: unknown option %s", k)
		}
	}
	return st.Forge(ctx, o)
}

// acknowledge reads `from field=json ...` and says it to the owner of the stream.
func acknowledge(ctx context.Context, st *harness.Stream, f []string) error {
	if len(f) == 0 {
		return errors.New("acknowledge: as whom?")
	}
	said := harness.Said{From: f[0], Fields: map[string]string{}}
	for _, opt := range f[1:] {
		k, v, _ := strings.Cut(opt, "=")
		said.Fields[k] = v
	}
	return st.Acknowledge(ctx, said)
}
