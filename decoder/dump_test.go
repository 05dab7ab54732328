package decoder

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/pgwaltz/pgwaltz/wal"
)

// dumper prints transactions for goldens. A relation is printed where it is first used.
type dumper struct {
	strings.Builder
	seen map[*wal.Relation]bool
}

func (p *dumper) transaction(t *wal.Transaction) {
	fmt.Fprintf(p, "transaction %d commit %s end %s at %s", t.XID, t.CommitLSN, t.EndLSN, t.CommitTime)
	if t.Origin != "" {
		fmt.Fprintf(p, " origin %s", t.Origin)
	}
	if t.Part > 0 || t.More {
		fmt.Fprintf(p, " part %d more %t", t.Part, t.More)
	}
	p.WriteByte('\n')
	for i := range t.Messages {
		p.message("  ", t.Messages[i])
	}
	for i := range t.Changes {
		p.change(&t.Changes[i])
	}
}

func (p *dumper) message(indent string, m wal.Message) {
	fmt.Fprintf(p, "%smessage %q at %s transactional %t: %q\n", indent, m.Prefix, m.LSN, m.Transactional, m.Content)
}

func (p *dumper) change(c *wal.Change) {
	if !p.seen[c.Relation] {
		if p.seen == nil {
			p.seen = map[*wal.Relation]bool{}
		}
		p.seen[c.Relation] = true
		p.relation(c.Relation)
	}
	fmt.Fprintf(p, "  %s %s\n", c.Op, c.Relation)
	if c.Old != nil {
		word := "key"
		if c.OldFull {
			word = "old"
		}
		p.tuple(word, c.Relation, c.Old)
	}
	if c.New != nil {
		p.tuple("new", c.Relation, c.New)
	}
}

func (p *dumper) relation(r *wal.Relation) {
	fmt.Fprintf(p, "  relation %s identity %c", r, r.Identity)
	if r.PrimaryKey != nil {
		fmt.Fprintf(p, " primary key %v", r.PrimaryKey)
	}
	p.WriteByte('\n')
	for _, c := range r.Columns {
		fmt.Fprintf(p, "    column %q", c.Name)
		if c.Type != "" {
			fmt.Fprintf(p, " type %s", c.Type) // the oid of a user type differs from run to run
		} else {
			fmt.Fprintf(p, " oid %d", c.OID)
		}
		if c.TypeMod != -1 {
			fmt.Fprintf(p, " modifier %d", c.TypeMod)
		}
		if c.Key {
			p.WriteString(" key")
		}
		p.WriteByte('\n')
	}
}

func (p *dumper) tuple(word string, r *wal.Relation, t wal.Tuple) {
	fmt.Fprintf(p, "    %s", word)
	for i, v := range t {
		fmt.Fprintf(p, " %s=%s", r.Columns[i].Name, dumpValue(v))
	}
	p.WriteByte('\n')
}

func dumpValue(v wal.Value) string {
	switch v.Kind {
	case wal.Null:
		return "NULL"
	case wal.Unchanged:
		return "UNCHANGED"
	case wal.Text:
		if len(v.Bytes) > 80 {
			return fmt.Sprintf("text[%d bytes, sha256 %.8x]", len(v.Bytes), sha256.Sum256(v.Bytes))
		}
		return fmt.Sprintf("%q", v.Bytes)
	case wal.Binary:
		if len(v.Bytes) > 80 {
			return fmt.Sprintf("binary[%d bytes, sha256 %.8x]", len(v.Bytes), sha256.Sum256(v.Bytes))
		}
		return fmt.Sprintf("x%x", v.Bytes)
	}
	return fmt.Sprintf("kind %q", byte(v.Kind))
}
