package sim

import (
	"strconv"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/conflict"
	"github.com/pgwaltz/pgwaltz/wal"
)

// table is a table as every region defines it.
type table struct {
	conf tableConf
	rel  *wal.Relation
	cols conflict.Columns
	pol  conflict.Policy
	oid  uint32
}

// Positions of the columns that every table has.
const (
	colKey = 0
	colVal = 1
)

func newTable(i int, c tableConf) *table {
	t := &table{conf: c, oid: uint32(16400 + i), pol: conflict.Policy{Order: c.Order}}
	t.rel = &wal.Relation{Schema: "public", Name: "t" + strconv.Itoa(i), Identity: wal.IdentityDefault, PrimaryKey: []int{0}}
	if c.Full {
		t.rel.Identity = wal.IdentityFull
	}
	add := func(name string, oid uint32) {
		t.rel.Columns = append(t.rel.Columns, wal.Column{Name: name, OID: oid, TypeMod: -1, Key: c.Full || name == "id"})
	}
	if c.Spelled {
		add("id", wal.OIDNumeric)
		t.rel.Columns[colKey].Form = wal.FormNumeric
	} else {
		add("id", 23)
	}
	add("val", 25)
	if c.Toast {
		add("big", 25)
	}
	if c.Version {
		add("version", 20)
	}
	if c.Time {
		add("updated_at", 1184)
	}
	t.cols = conflict.ColumnsOf(t.rel, "version", "updated_at")
	return t
}

func text(s string) wal.Value { return wal.Value{Kind: wal.Text, Bytes: []byte(s)} }

// image makes a row; a nil version or time is NULL.
func (t *table) image(key string, wid int, salt int, big wal.Value, version *int64, at *int64) wal.Tuple {
	row := make(wal.Tuple, 0, 5)
	row = append(row, text(key), text("w"+strconv.Itoa(salt)+"-"+strconv.Itoa(wid)))
	if t.conf.Toast {
		row = append(row, big)
	}
	null := wal.Value{Kind: wal.Null}
	if t.conf.Version {
		if version == nil {
			row = append(row, null)
		} else {
			row = append(row, text(strconv.FormatInt(*version, 10)))
		}
	}
	if t.conf.Time {
		if at == nil {
			row = append(row, null)
		} else {
			row = append(row, text(time.UnixMicro(*at).UTC().Format("2006-01-02 15:04:05.999999+00")))
		}
	}
	return row
}

// widOf reads the write id from a row.
func widOf(row wal.Tuple) int {
	if row == nil || row[colVal].Kind != wal.Text {
		return 0
	}
	_, n, _ := strings.Cut(string(row[colVal].Bytes), "-")
	w, _ := strconv.Atoi(n)
	return w
}

// keyText is the canonical text of a row's key.
func (t *table) keyText(row wal.Tuple) string {
	return string(t.rel.AppendKey(nil, row))
}

// keyText is the canonical text of the nth key of a table.
func keyText(n int) string { return "[\"" + strconv.Itoa(n) + "\"]" }

// keyRow is a row of which the key alone is known.
func (t *table) keyRow(k rowKey) wal.Tuple {
	row := make(wal.Tuple, len(t.rel.Columns))
	for i := range row {
		row[i].Kind = wal.Null
	}
	row[colKey] = text(k.key[2 : len(k.key)-2])
	return row
}

// old is what the WAL says of a row before a change.
func (t *table) old(row wal.Tuple) (wal.Tuple, bool) {
	if t.conf.Full {
		return row, true
	}
	k := make(wal.Tuple, len(row))
	for i := range k {
		k[i].Kind = wal.Null
	}
	k[colKey] = row[colKey]
	return k, false
}
