package visible

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                "",
		"public.users":                    "public.users",
		`ünï "q" \ 漢字 �`:                  `ünï "q" \ 漢字 �`,
		"a\x1b[31m\nstate\tok\r":          `a\x1b[31m\nstate\tok\r`,
		"c1 \u009b31m del \x7f nul \x00":  `c1 \u009b31m del \x7f nul \x00`,
		"bidi \u202e \u2066 line\u2028":   `bidi \u202e \u2066 line\u2028`,
		"broken \xff\xfe":                 `broken \xff\xfe`,
		"joined\u200b\ufeff and a\u00a0b": "joined\\u200b\\ufeff and a\u00a0b",
	} {
		if got := Text(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if got := Lines("a\nb\x1b[1m\r\n"); got != "a\nb\\x1b[1m\\r\n" {
		t.Errorf("lines: %q", got)
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"", "public.users", `ünï "q" \ 漢字 <&>`, "a\x1b[31m\nstate\tok\r", "c1 \u009b31m \u0085 del \x7f nul \x00",
		"bidi \u202e \u2066 line\u2028", "joined\u200b\ufeff, tags \U000e0041 and \U0001f600", "\u009b",
	} {
		var b bytes.Buffer
		e := json.NewEncoder(JSONWriter(&b))
		e.SetEscapeHTML(false)
		e.SetIndent("", "\t")
		if err := e.Encode(map[string]string{in: in}); err != nil {
			t.Fatal(err)
		}
		var back map[string]string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || back[in] != in || len(back) != 1 {
			t.Errorf("%q: %q %v", in, back, err)
		}
		if text := strings.NewReplacer("\n", "", "\t", "").Replace(b.String()); Text(text) != text {
			t.Errorf("%q: %q", in, text)
		}
	}
}

type word string

func TestArgs(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := fmt.Sprintf("%s|%s|%s|%d|%v|%s|%.1f", Args([]any{"a\nb", word("c\x1bd"), errors.New("e\rf"), 7, at, error(nil), 1.5})...)
	if want := `a\nb|c\x1bd|e\rf|7|2026-01-02 03:04:05 +0000 UTC|%!s(<nil>)|1.5`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
