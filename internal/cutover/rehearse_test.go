package cutover

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgwaltz/pgwaltz/internal/cutover/hold"
	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

// A rehearsal names what is lost, doubled or made up behind its back, and how long nothing could be written. It goes where the application would go.
func TestRehearseFindsLoss(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.streamed()
	role := p.s.Config().Database + "_app"
	pgtest.Exec(t, p.s, `create role `+role+` login`)
	var usage *UsageError
	if err := p.PrepareRehearsal(t.Context(), "postgres"); !errors.As(err, &usage) {
		t.Errorf("a role that no pause holds: %v", err)
	}
	how := Rehearsal{Role: role, Every: 10 * time.Millisecond, For: time.Minute, Arrival: 200 * time.Millisecond}
	var unready *NotReadyError
	if _, err := p.Rehearse(t.Context(), how); !errors.As(err, &unready) {
		t.Errorf("without a table: %v", err)
	}
	pgtest.Exec(t, p.d, `create view public.pgwaltz_rehearsal as select 1 as n`)
	if err := p.PrepareRehearsal(t.Context(), role); !errors.As(err, &usage) {
		t.Errorf("a view of somebody: %v", err)
	}
	pgtest.Exec(t, p.d, `drop view public.pgwaltz_rehearsal`)
	if err := p.PrepareRehearsal(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Rehearse(t.Context(), how); !errors.As(err, &unready) {
		t.Errorf("nothing brings the rows: %v", err)
	}
	pgtest.Exec(t, p.s, `truncate pgwaltz_rehearsal`)

	how.For, how.Arrival = 0, 5*time.Second
	ends := *p.Ends // the rehearsal has sessions of its own
	for _, e := range []**End{&ends.Source, &ends.Destination} {
		one, err := (*e).dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		*e = one
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	type result struct {
		*Rehearsed
		error
	}
	done := make(chan result, 1)
	go func() {
		r, err := ends.Rehearse(ctx, how)
		done <- result{r, err}
	}()
	// The way to the other end is this test.
	come(t, p.s, `select exists (select from pgwaltz_rehearsal)`)
	run := text(t, p.s, `select run from pgwaltz_rehearsal limit 1`)
	pgtest.Exec(t, p.d, `insert into pgwaltz_rehearsal (id, run, n, side) values (1, '`+run+`', 0, 'eu')`)
	come(t, p.s, `select count(*) > 8 from pgwaltz_rehearsal`)
	p.take()
	if _, err := hold.Drain(t.Context(), p.Source.Conn, nil, 0); err != nil {
		t.Fatal(err)
	}
	last := text(t, p.s, `select max(n) from pgwaltz_rehearsal`)
	pgtest.Exec(t, p.s, `select pg_sleep(0.3)`)
	if now := text(t, p.s, `select max(n) from pgwaltz_rehearsal`); now != last {
		t.Errorf("it writes in the pause: %s, then %s", last, now)
	}
	// All but number 3 comes, 4 comes twice, and one comes that nobody has written. The destination's sequence is behind.
	rows, err := p.s.Query(t.Context(), `select format('insert into pgwaltz_rehearsal (id, run, n, side) values (%s, %L, %s, %L)', id, run, n, side) from pgwaltz_rehearsal where run = $1 and n not in (0, 3)`, run)
	if err != nil {
		t.Fatal(err)
	}
	inserts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, p.d, inserts...)
	pgtest.Exec(t, p.d, fmt.Sprintf(`insert into pgwaltz_rehearsal (id, run, n, side) values (-4, '%[1]s', 4, 'eu'), (-5, '%[1]s', 1000000, 'eu')`, run),
		`update pgwaltz_rehearsal set beats = `+last+` where n = 0`, `select setval('pgwaltz_rehearsal_id_seq', (select max(id) - 2 from pgwaltz_rehearsal))`)
	if err := hold.Finish(t.Context(), p.Source.Conn); err != nil {
		t.Fatal(err)
	}
	come(t, p.d, `select count(*) > 3 from pgwaltz_rehearsal where side = 'us'`)
	stop()
	r := <-done
	if r.error != nil {
		t.Fatal(r.error)
	}
	if got := fmt.Sprint(r.Moves, r.Missing, r.Twice); got != "[eu us] [3] [4]" || len(r.Ghosts) != 1 || r.GivenTwice == 0 || r.Outages == 0 || r.Longest < 0.3 || r.Beats == r.Rows || !r.Lost() || r.MissingAway == 0 {
		t.Errorf("%+v", r.Rehearsed)
	}
	if r.Errors["23505"] != r.GivenTwice || r.Errors["42501"]+r.Errors["25006"]+r.Errors["57P01"] == 0 {
		t.Errorf("%v", r.Errors)
	}
	if _, err := p.ResumeWrite(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := p.RemoveRehearsal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.RemoveRehearsal(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// come waits until the question is answered with true.
func come(t *testing.T, conn *pgx.Conn, question string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); text(t, conn, "("+question+")") != "true"; {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", question)
		}
	}
}
