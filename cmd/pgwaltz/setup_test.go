package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// setup and check as a user runs them: dry run, refusal, set-up, check, and again.
func TestSetupAndCheckCommands(t *testing.T) {
	t.Parallel()
	b := setup(t, "127.0.0.1:0")
	invoke := func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append(args, "-config", b.config), nil, &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	for _, sql := range []string{`DROP SCHEMA pgwaltz CASCADE`, `SELECT pg_drop_replication_slot('pgwaltz_demo_eu')`,
		`CREATE TABLE public.users (id uuid PRIMARY KEY, version bigint NOT NULL DEFAULT 0, updated_at timestamptz NOT NULL DEFAULT now())`,
		`CREATE TABLE public.r4 (a int)`} {
		if _, err := b.conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	code, out, talk := invoke("check")
	if code != exitCheck || !strings.Contains(out, `schema pgwaltz does not exist`) || !strings.Contains(out, "fix: pgwaltz setup") {
		t.Errorf("check before setup: %d\n%s%s", code, out, talk)
	}
	code, script, talk := invoke("setup", "-dry-run")
	if code != exitOK || !strings.Contains(script, "create schema if not exists pgwaltz;") || !strings.Contains(talk, "nothing was run") || !strings.Contains(talk, "public.r4 is left out") {
		t.Errorf("dry run: %d\n%s%s", code, script, talk)
	}
	var n int
	if err := b.conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_namespace WHERE nspname = 'pgwaltz'`).Scan(&n); err != nil || n != 0 {
		t.Errorf("the dry run created the schema: %d, %v", n, err)
	}
	code, out, talk = invoke("setup")
	if n, want := strings.Count(out, ";\n\n"), strings.Count(script, ";\n\n"); code != exitOK || n != want || !strings.Contains(talk, "is set up") {
		t.Errorf("setup: %d, %d statements, %d in the dry run\n%s%s", code, n, want, out, talk)
	}
	if code, out, talk = invoke("setup"); code != exitOK || out != "" || !strings.Contains(talk, " 0 statements run") {
		t.Errorf("second setup: %d\n%s%s", code, out, talk)
	}
	code, out, talk = invoke("check", "-json")
	var report checkReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != exitOK || !report.OK || report.Region != "eu" || len(report.Findings) == 0 {
		t.Errorf("check: %d, %v, %+v\n%s", code, err, report, talk)
	}
	if code, out, talk = invoke("check", "-show-config"); code != exitOK || !strings.Contains(out, "slot: pgwaltz_demo_eu") {
		t.Errorf("show-config: %d\n%s%s", code, out, talk)
	}
}

func TestSetupWithoutDatabase(t *testing.T) {
	t.Parallel()
	env := []string{"PGWALTZ_CLUSTER=c", "PGWALTZ_REGION=eu", "PGWALTZ_DIRECTION=publish", "PGWALTZ_POSTGRES_DSN=postgres://u:hunter2@127.0.0.1:1/db"}
	for _, command := range []string{"setup", "check"} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), []string{command}, env, &stdout, &stderr); code != exitPostgres || !strings.Contains(stderr.String(), "connect to database") {
			t.Errorf("%s: %d %s", command, code, stderr.String())
		}
		stderr.Reset()
		if code := run(t.Context(), []string{command}, append(env, "PGWALTZ_REGION=E U"), &stdout, &stderr); code != exitConfig || !strings.Contains(stderr.String(), "region") {
			t.Errorf("%s with a bad region: %d %s", command, code, stderr.String())
		}
		if strings.Contains(stderr.String()+stdout.String(), "hunter2") {
			t.Errorf("%s prints a password", command)
		}
	}
}
