// Package guard makes errors of panics. A panic in one pipe ends that pipe, with its name and
// the place in the log, and nothing else.
package guard

import (
	"fmt"
	"runtime/debug"
)

// PanicError is a panic that was caught. It names a defect of this program.
type PanicError struct {
	What  string // which part of the program
	Value any
	Stack []byte
}

// Error names the part and the panic, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic in %s: %v", e.What, e.Value) }

// Hint tells an operator what to do.
func (e *PanicError) Hint() string {
	return "a defect of pgwaltz: the other pipes go on; report it with the lines of the log around it"
}

// Run calls f and returns its error, or a *PanicError when it panicked. It catches panics of
// the calling goroutine only: each goroutine that f starts needs a Run of its own.
func Run(what string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{What: what, Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}
