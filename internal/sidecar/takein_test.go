package sidecar

import "testing"

// A question for copies that comes again, because its answer was lost, is answered and puts no copy back to its beginning.
func TestCopiesThatAreAskedForAgain(t *testing.T) {
	t.Parallel()
	var s Sidecar // without a database: who asks for copies would need it
	question := []byte(`{"of":7,"tables":[{"Schema":"public","Name":"t"}]}`)
	s.granted.note("us", question)
	for range rewindBurst + 1 { // nor does it use up what the peer may ask for
		if got, err := s.sayCopies(t.Context(), "us", question); err != nil || string(got) != string(question) {
			t.Fatalf("the answer is %s, %v", got, err)
		}
	}
	if s.granted.is("ap", question) || s.granted.is("us", []byte(`{"of":8,"tables":[{"Schema":"public","Name":"t"}]}`)) {
		t.Error("another peer's question, or that of a later term, counts as answered")
	}
	s.granted.forget()
	if s.granted.is("us", question) {
		t.Error("it is remembered in another term")
	}
}
