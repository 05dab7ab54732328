package broker_test

import (
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/broker/brokertest"
)

// Of an external server every byte is seen, before a message is whole; of the own one there is nothing to
// be seen.
func TestLastByte(t *testing.T) {
	t.Parallel()
	b, host, _, _ := brokertest.External(t, "eu")
	if _, ok := host.LastByte("host"); ok {
		t.Error("bytes of a server inside of this process")
	}
	before, ok := b.LastByte("eu")
	if !ok || time.Since(before) > time.Minute {
		t.Fatalf("the last byte came at %s, %t", before, ok)
	}
	if err := b.ConnOf("eu").Flush(); err != nil { // asks for a pong
		t.Fatal(err)
	}
	if at, _ := b.LastByte("eu"); !at.After(before) {
		t.Errorf("the last byte came at %s, and a pong behind it", at)
	}
}
