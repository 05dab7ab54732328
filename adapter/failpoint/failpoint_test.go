package failpoint

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{"x", ":kill", "x:burn", "x:kill@0", "x:kill@a", "x:sleep=soon", "x:kill,y"} {
		if _, err := parse(spec); err == nil {
			t.Errorf("parse(%q) accepted it", spec)
		}
	}
	if p, err := parse(" "); p != nil || err != nil {
		t.Errorf("parse of nothing = %v, %v", p, err)
	}
}

func TestHitFiresOnce(t *testing.T) {
	t.Parallel()
	p, err := parse("a:error@3, a:error@5 ,b:sleep=1ms,d:error@each")
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 7; n++ {
		err := p.hit("a")
		if want := n == 3 || n == 5; errors.Is(err, ErrInjected) != want {
			t.Errorf("pass %d: %v", n, err)
		}
	}
	for n := range 3 {
		if err := p.hit("d"); !errors.Is(err, ErrInjected) {
			t.Errorf("pass %d of an entry for each: %v", n, err)
		}
	}
	for _, name := range []string{"b", "c"} {
		if err := p.hit(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	if os.Getenv(Env) != "" {
		for range 3 {
			if err := Hit("here"); err != nil {
				t.Fatal(err)
			}
		}
		t.Fatal("still alive")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), Env+"=here:kill@2")
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("run: %v", err)
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		t.Fatalf("ended with %v, want SIGKILL", err)
	}
}
