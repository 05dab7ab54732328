package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

func TestCheckKnowsTheModes(t *testing.T) {
	t.Parallel()
	dsn, dir := pgtest.New(t).Database(t), t.TempDir()
	conn := pgtest.Connect(t, dsn)
	config := func(mode string) string {
		path := filepath.Join(dir, mode+".yaml")
		text := fmt.Sprintf("cluster: demo\nregion: eu\ndirection: publish\nmode: %s\npostgres: {dsn: %q, unbounded_wal: true}\npeers: [{region: us}]\nnats: {listen: '127.0.0.1:0', store_dir: %q}\nhttp: {listen: ''}\n",
			mode, dsn, filepath.Join(dir, "store"))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(want int, args ...string) {
		t.Helper()
		if code, stdout, stderr := call(t, args...); code != want {
			t.Fatalf("%v: code %d, want %d: %s%s", args, code, want, stdout, stderr)
		}
	}
	check := func(mode string, want int, codes ...string) {
		t.Helper()
		code, stdout, stderr := call(t, "check", "-config", config(mode), "-json")
		var report checkReport
		if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != want {
			t.Fatalf("check in mode %s: code %d, want %d, %v: %s%s", mode, code, want, err, stdout, stderr)
		}
		var got []string
		for _, f := range report.Findings {
			if strings.HasPrefix(f.Code, "mode") {
				got = append(got, f.Code)
			}
		}
		if !slices.Equal(got, codes) {
			t.Errorf("check in mode %s: %q, want %q", mode, got, codes)
		}
	}
	run(exitOK, "setup", "-config", config("native"))
	check("native", exitOK, "mode_unfinished", "mode")
	check("stream", exitOK)
	run(exitOK, "mode", "switch", "-config", config("native"), "native")
	check("native", exitOK, "mode")
	check("stream", exitOK, "mode_differs", "mode")
	pgtest.Exec(t, conn, `update pgwaltz.mode set settled = false`)
	check("native", exitCheck, "mode_cut_off", "mode_unfinished", "mode")
	run(exitOther, "run", "-config", config("native"))
}
