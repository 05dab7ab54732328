package pglogical

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
	"github.com/pgwaltz/pgwaltz/conflict/audit"
	"github.com/pgwaltz/pgwaltz/wal"
)

// Conflict is one that pglogical has written into the server's log. Values longer than 40 bytes it has cut.
type Conflict struct {
	Verb           string // INSERT, UPDATE or DELETE
	Relation       wal.RelationName
	Resolution     string // apply_remote, keep_local or skip
	Found          bool   // a local row was there
	Local, Remote  string // the rows
	Origin         uint32 // number of the replication origin on this server
	Committed, LSN string // of the transaction that came
}

// As pglogical 2.4 writes it, from behind "CONFLICT: remote ".
var conflictText = regexp.MustCompile(`(?s)^(INSERT|UPDATE|DELETE) on relation (.+?) (?:\(local index .+?\)|replica identity index .+? \(tuple not found\))\. Resolution: (\w+)\..+?` +
	`(?:existing local tuple \{(.*)\} xid=\d+,origin=\d+,timestamp=[^;]*; )?remote tuple \{(.*)\}[^{}]* in xact origin=(\d+),timestamp=([^,]*),commit_lsn=([0-9A-F]+/[0-9A-F]+)`)

// Parse reads a text of ServerLog; false where it is no conflict of pglogical.
func Parse(text string) (c Conflict, ok bool) {
	m := conflictText.FindStringSubmatchIndex(text)
	if m == nil {
		return c, false
	}
	part := func(i int) string {
		if m[2*i] < 0 {
			return ""
		}
		return text[m[2*i]:m[2*i+1]]
	}
	origin, err := strconv.ParseUint(part(6), 10, 32)
	if err != nil {
		return c, false
	}
	c = Conflict{Verb: part(1), Resolution: part(3), Found: m[8] >= 0, Local: part(4), Remote: part(5), Origin: uint32(origin), Committed: part(7), LSN: part(8)}
	c.Relation, ok = relation(part(2))
	return c, ok
}

var qualified = regexp.MustCompile(`^("(?:[^"]|"")+"|[^".]+)\.("(?:[^"]|"")+"|[^".]+)$`)

// relation reads a name as quote_qualified_identifier writes it.
func relation(text string) (wal.RelationName, bool) {
	m := qualified.FindStringSubmatch(text)
	if m == nil {
		return wal.RelationName{}, false
	}
	for i, s := range m {
		if strings.HasPrefix(s, `"`) {
			m[i] = strings.ReplaceAll(s[1:len(s)-1], `""`, `"`)
		}
	}
	return wal.RelationName{Schema: m[1], Name: m[2]}, true
}

// plain undoes the quotes of the log's form, which the name of the file tells.
func plain(text, file string) string {
	switch {
	case strings.HasSuffix(file, ".csv"):
		return strings.ReplaceAll(text, `""`, `"`)
	case strings.HasSuffix(file, ".json"):
		var b strings.Builder
		for i, s := range strings.Split(text, `","detail":"`) {
			var out string
			if i > 0 { // of the line's rest only what is quoted
				s, _, _ = strings.Cut(s, `","`)
			}
			if json.Unmarshal([]byte(`"`+s+`"`), &out) != nil {
				return ""
			}
			b.WriteString(out)
			b.WriteByte('\n')
		}
		return b.String()
	}
	return strings.ReplaceAll(text, "\n\t", "\n")
}

// Record is the row of the audit log for a conflict. t is the table as it is here, nil where it is not known. What redact hides is hidden;
// a row whose text may be read in two ways is left out.
func (c Conflict) Record(region, peer string, t *pg.Table, redact *audit.Redactor) audit.Record {
	sum := sha256.Sum256(fmt.Appendf(nil, "pglogical %q %q %q %+v", region, peer, c.LSN, c))
	r := audit.Record{EventID: [16]byte(sum[:16]), Region: region, Origin: peer, Relation: c.Relation, Type: c.kind(), Verdict: "keep", Winner: region, Loser: peer,
		Reason: "pglogical: " + c.Resolution + ", as the server's log says"}
	if c.Resolution == "apply_remote" {
		r.Verdict, r.Winner, r.Loser = "apply", peer, region
	}
	if lsn, err := wal.ParseLSN(c.LSN); err == nil {
		r.CommitLSN = lsn
	}
	if at, ok := c.at(); ok {
		r.CommitTime = wal.MicrosOf(at)
	}
	if t == nil {
		return r
	}
	remote := fields(t, c.Remote)
	local := fields(t, c.Local)
	r.Key = redact.Image(c.Relation, object(remote, t.PrimaryKey))
	if c.Found {
		r.LocalRow = redact.Image(c.Relation, object(local, nil))
	}
	if c.Verb != "DELETE" {
		r.RemoteRow = redact.Image(c.Relation, object(remote, nil))
	}
	return r
}

// kind is the type of the audit log: the names of the stream.
func (c Conflict) kind() string {
	switch {
	case c.Verb == "INSERT":
		return "insert_exists"
	case c.Verb == "UPDATE" && c.Found:
		return "update_origin_differs"
	case c.Verb == "UPDATE":
		return "update_missing"
	case c.Found:
		return "delete_origin_differs"
	}
	return "delete_missing"
}

// at is when the transaction that came was committed, by its server's clock.
func (c Conflict) at() (time.Time, bool) {
	for _, form := range []string{"2006-01-02 15:04:05.999999-07", "2006-01-02 15:04:05.999999-07:00"} {
		if at, err := time.Parse(form, c.Committed); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// Since reports whether it was committed then or later; true where that cannot be told.
func (c Conflict) Since(when time.Time) bool {
	at, ok := c.at()
	return !ok || !at.Before(when)
}

// fields are the values of a row as JSON, by column; nil where the text does not say for certain which is which.
func fields(t *pg.Table, row string) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	rest := " " + row
	for i, c := range t.Columns {
		head := " " + c.Name + "["
		if strings.Count(" "+row, head) != 1 || !strings.HasPrefix(rest, head) {
			return nil
		}
		kind, value, ok := strings.Cut(rest[len(head):], "]:")
		if !ok {
			return nil
		}
		rest = ""
		if i+1 < len(t.Columns) {
			at := strings.Index(value, " "+t.Columns[i+1].Name+"[")
			if at < 0 {
				return nil
			}
			value, rest = value[:at], value[at:]
		}
		out[c.Name] = jsonOf(kind, value)
	}
	if len(t.Columns) == 0 {
		return nil
	}
	return out
}

// jsonOf prints a value as the audit log of the stream does.
func jsonOf(kind, value string) json.RawMessage {
	switch {
	case value == "(null)":
		return json.RawMessage("null")
	case kind == "bool" && (value == "t" || value == "f"):
		return json.RawMessage(strconv.FormatBool(value == "t"))
	case slices.Contains([]string{"int2", "int4", "int8", "numeric", "float4", "float8"}, kind) && json.Valid([]byte(value)):
		return json.RawMessage(value)
	}
	text, err := json.Marshal(strings.ReplaceAll(strings.ToValidUTF8(value, "?"), "\x00", "?"))
	if err != nil {
		return json.RawMessage("null")
	}
	return text
}

// object prints the named columns, or all of them; nil where there are none.
func object(values map[string]json.RawMessage, names []string) []byte {
	if values == nil {
		return nil
	}
	some := values
	if names != nil {
		some = map[string]json.RawMessage{}
		for _, n := range names {
			some[n] = values[n]
		}
	}
	text, err := json.Marshal(some)
	if err != nil {
		return nil
	}
	return text
}
