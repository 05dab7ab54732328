package wire

import (
	"crypto/ed25519"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgwaltz/pgwaltz/wal"
)

var update = flag.Bool("update", false, "write the golden files")

// The bytes of version 1. A change here breaks every running pair of regions: it needs a
// new Version.
func TestGolden(t *testing.T) {
	t.Parallel()
	rel := users()
	pages := &wal.Relation{
		Schema: "app", Name: "page", Identity: wal.IdentityIndex, PrimaryKey: []int{1, 0},
		Columns: []wal.Column{{Name: "id", OID: 23, TypeMod: -1, Key: true}, {Name: "lang", OID: 1043, TypeMod: 9, Key: true}},
	}
	for name, c := range map[string]struct {
		tweak func(*EncoderConfig)
		kind  Kind
		flags Flags
		txs   []*wal.Transaction
	}{
		"heartbeat": {kind: Heartbeat},
		"update":    {kind: Data, txs: []*wal.Transaction{userUpdate(rel, 1)}},
		"every-op": {kind: Data, flags: Resync, txs: []*wal.Transaction{
			{
				XID: 700, Origin: "bulk", CommitLSN: 0x2000, EndLSN: 0x2030, CommitTime: sampleTime,
				Changes: []wal.Change{
					{Op: wal.Insert, Relation: pages, New: wal.Tuple{text("1"), text("de")}, Stamp: wal.Stamp{Generation: 3, Version: wal.NullVersion, UpdatedAt: wal.MinMicros}},
					{
						Op: wal.Update, Relation: pages, Old: wal.Tuple{text("1"), text("de")}, New: wal.Tuple{text("2"), text("")},
						Stamp: wal.Stamp{Version: -1, UpdatedAt: wal.MaxMicros}, Base: wal.Base{HasDigest: true, Digest: [16]byte{0xaa, 15: 0xbb}},
					},
					{Op: wal.Delete, Relation: rel, Old: userRow(), OldFull: true, Stamp: wal.Stamp{Version: wal.MaxVersion, UpdatedAt: sampleTime}},
					{Op: wal.Truncate, Relation: pages, Stamp: wal.Stamp{UpdatedAt: 5}},
				},
				Messages: []wal.Message{{Transactional: true, LSN: 0x1f00, Prefix: "pgwaltz.hb", Content: []byte("eu")}},
			},
			{XID: 701, CommitLSN: 0x3000, CommitTime: sampleTime + 1, Part: 2, More: true},
		}},
		"compressed": {kind: Copy, tweak: func(c *EncoderConfig) { c.Compress = true }, txs: []*wal.Transaction{userUpdate(rel, 1), userUpdate(rel, 2), userUpdate(rel, 3)}},
		"told": {kind: Data, txs: []*wal.Transaction{{
			XID: 702, Applied: true, CommitLSN: 0x3000, EndLSN: 0x3030, CommitTime: sampleTime,
			Changes: []wal.Change{{Op: wal.Update, Relation: rel, New: userRow(), Stamp: wal.Stamp{Version: 7, UpdatedAt: sampleTime - 35}, Repair: true}},
			Notices: []wal.Notice{
				{
					Relation: rel, ID: [16]byte{0xaa, 15: 0xbb}, To: "us", Type: "update_origin_differs", Outcome: wal.Lost,
					Yours: wal.Entry{Known: true, Alive: true, Stamp: wal.Stamp{Version: 6, UpdatedAt: sampleTime}, Row: userRow()},
					Mine:  wal.Entry{Known: true, Alive: true, Stamp: wal.Stamp{Version: 7, UpdatedAt: sampleTime - 35}, Row: userRow()},
				},
				{Relation: rel, To: "eu", Outcome: wal.Wanted, Yours: wal.Entry{Known: true, Alive: true, Stamp: wal.Stamp{Version: 7, UpdatedAt: sampleTime}, Row: append(userRow()[:9:9], wal.Digested([]byte("large")))}},
				{Relation: pages, To: "us", Type: "delete_missing", Outcome: wal.Won, Yours: wal.Entry{Known: true, Stamp: wal.Stamp{Version: wal.MaxVersion, UpdatedAt: sampleTime}, Row: wal.Tuple{text("1"), text("de")}}},
			},
		}}},
		"signed": {kind: Copy, txs: []*wal.Transaction{userUpdate(rel, 1)}, tweak: func(c *EncoderConfig) {
			key := ed25519.NewKeyFromSeed(make([]byte, 32))
			c.Sign = func(b []byte) []byte { return ed25519.Sign(key, b) }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := sampleConfig()
			if c.tweak != nil {
				c.tweak(&cfg)
			}
			e := NewEncoder(cfg, Position{Incarnation: 4, EndLSN: 0x1000})
			mustAdd(t, e, c.txs...)
			data := e.Cut(c.kind, c.flags, 0x4000, sampleTime+2_000_000)[0].Data
			got := Describe(data) + "\n" + hex.Dump(data)
			file := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("frame differs from %s:\n%s", file, got)
			}
			same(t, mustParse(t, NewAssembler(0, nil), []Frame{{Header: mustHeader(t, data), Data: data}}), c.txs)
		})
	}
}

func mustHeader(t *testing.T, data []byte) Header {
	t.Helper()
	h, err := ParseHeader(data)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	good := sampleFrame(t, sampleConfig()).Data
	damaged := append([]byte(nil), good...)
	damaged[len(damaged)-1] ^= 1
	for name, b := range map[string][]byte{"empty": nil, "foreign": []byte("hello"), "short": good[:50], "damaged": damaged, "good": good} {
		if Describe(b) == "" {
			t.Errorf("%s: nothing said", name)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		Subject("accounts", "eu"):                        "pgwaltz.accounts.eu.f",
		StreamName("accounts", "eu"):                     "PGWALTZ_accounts_eu",
		ControlSubject("accounts", "us", "rewind", "eu"): "pgwaltz.accounts.ctl.us.rewind.eu",
		AckSubject("accounts", "eu", "us"):               "pgwaltz.accounts.ack.eu.us",
		(First | Last | Compressed).String():             "first,last,s2",
		Flags(1 << 12).String():                          "0x1000",
		Kind(9).String():                                 "kind-9",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for name, ok := range map[string]bool{"eu": true, "eu-west-1": true, "": false, "a.b": false, "a b": false, "*": false, "ctl": false, "EU": false} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
