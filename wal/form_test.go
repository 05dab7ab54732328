package wal

import "testing"

func TestCanonical(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		form     Form
		in, want string
	}{
		{FormPlain, "1.50", "1.50"}, {FormPlain, "a ", "a "},
		{FormNumeric, "1.50", "1.5"}, {FormNumeric, "1.00", "1"}, {FormNumeric, "100", "100"}, {FormNumeric, "0.000", "0"},
		{FormNumeric, "-0.10", "-0.1"}, {FormNumeric, "-0.0", "0"}, {FormNumeric, "NaN", "NaN"}, {FormNumeric, "Infinity", "Infinity"},
		{FormFloat, "-0", "0"}, {FormFloat, "-0.5", "-0.5"}, {FormFloat, "1e-07", "1e-07"},
		{FormPadded, "ab   ", "ab"}, {FormPadded, "   ", ""}, {FormPadded, " a", " a"},
		{FormLower, "Bob", "Bob"}, {FormHash, "Bob", "Bob"},
	} {
		if got := string(tt.form.Canonical([]byte(tt.in))); got != tt.want {
			t.Errorf("%s of %q is %q, want %q", tt.form, tt.in, got, tt.want)
		}
	}
}

func TestAppendKey(t *testing.T) {
	t.Parallel()
	rel := &Relation{Schema: "s", Name: "t", Identity: IdentityFull, PrimaryKey: []int{2, 0, 1}, Columns: []Column{
		{Name: "a", OID: 1700, Form: FormNumeric}, {Name: "b", OID: 25, Form: FormHash}, {Name: "c", OID: 99999, Form: FormLower},
	}}
	row := Tuple{{Kind: Text, Bytes: []byte("7.10")}, {Kind: Text, Bytes: []byte("B")}, {Kind: Text, Bytes: []byte("C")}}
	if !rel.Asks() {
		t.Error("the key has forms that only the server knows")
	}
	if got := string(rel.AppendKey(nil, row, []byte("c"), []byte("1.2"))); got != `["c","7.1","1.2"]` {
		t.Errorf("got %s", got)
	}
	ch := Change{Op: Update, Relation: rel, Old: row, New: row, Keys: &Keys{Old: []byte("o"), New: []byte("n")}}
	if got := string(ch.AppendKey(nil)) + string(ch.AppendOldKey(nil)); got != "no" {
		t.Errorf("got %s", got)
	}
	ch = Change{Op: Delete, Relation: rel, Old: row}
	if got := string(ch.AppendKey([]byte("x"))); got != `x["C","7.1","B"]` {
		t.Errorf("got %s", got)
	}
	long := Tuple{row[0], {Kind: Text, Bytes: make([]byte, 600)}, row[2]}
	if got := rel.AppendKey(nil, long); len(got) != 65 || got[0] != '#' {
		t.Errorf("a long key is %s", got)
	}
}
