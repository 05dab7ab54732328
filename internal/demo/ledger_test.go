package demo

import (
	"strings"
	"testing"
)

func TestLedgerCheck(t *testing.T) {
	t.Parallel()
	// One key; eu inserted 1, updated it to 2; us updated 1 to 3; eu deleted 2 as 4.
	history := []write{
		{id: "eu-1", key: "k", region: "eu"},
		{id: "eu-2", key: "k", region: "eu", prev: "eu-1"},
		{id: "us-3", key: "k", region: "us", prev: "eu-1"},
		{id: "eu-4", key: "k", region: "eu", prev: "eu-2", deletes: true},
		{id: "us-5", key: "k", region: "us", prev: "us-3", outcome: refused},
		{id: "us-6", key: "k", region: "us", prev: "us-3", outcome: unknown},
	}
	for name, c := range map[string]struct {
		final    map[string]string
		log      []beaten
		lost     string
		invented int
		audited  int
	}{
		"update won, delete audited":                     {final: map[string]string{"k": "us-3"}, log: []beaten{{key: "k", loser: "eu", isDelete: true}}, audited: 2},
		"update won, delete not audited":                 {final: map[string]string{"k": "us-3"}, lost: "eu-2,eu-4"},
		"the wrong region's delete audited":              {final: map[string]string{"k": "us-3"}, log: []beaten{{key: "k", loser: "us", isDelete: true}}, lost: "eu-2,eu-4"},
		"audited under another key":                      {final: map[string]string{"k": "us-3"}, log: []beaten{{key: "other", loser: "eu", id: "eu-2", isDelete: true}}, lost: "eu-2,eu-4"},
		"delete won, update audited":                     {final: map[string]string{}, log: []beaten{{key: "k", loser: "us", id: "us-3"}}, audited: 1},
		"delete won, update not audited":                 {final: map[string]string{}, lost: "us-3"},
		"everything gone without a trace but the delete": {final: nil, lost: "us-3"},
		"a write of unknown outcome is in the result":    {final: map[string]string{"k": "us-6"}, log: []beaten{{key: "k", loser: "eu", isDelete: true}}, audited: 2},
		"a refused write is in the result":               {final: map[string]string{"k": "us-5"}, log: []beaten{{key: "k", loser: "eu", isDelete: true}}, audited: 2, invented: 1},
		"a row that nobody wrote":                        {final: map[string]string{"k": "xx-9"}, log: []beaten{{key: "k", loser: "eu", isDelete: true}, {key: "k", loser: "us", id: "us-3"}}, audited: 4, invented: 1},
	} {
		l := newLedger()
		for _, w := range history {
			l.note(w)
		}
		v := l.check(c.final, c.log)
		var lost []string
		for _, s := range v.Lost {
			id, _, _ := strings.Cut(s, " ")
			lost = append(lost, id)
		}
		if strings.Join(lost, ",") != c.lost || len(v.Invented) != c.invented || v.Audited != c.audited || v.Explained+len(v.Lost) != 4 {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestLedgerSurvivesACycle(t *testing.T) {
	t.Parallel()
	l := newLedger()
	l.note(write{id: "a", key: "k", prev: "b"})
	l.note(write{id: "b", key: "k", prev: "a"})
	if v := l.check(map[string]string{"k": "a"}, nil); v.Explained != 2 {
		t.Fatalf("%+v", v)
	}
}
