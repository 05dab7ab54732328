//go:build !linux

package broker

// bootID is not known here: the server makes each message durable by itself.
func bootID() string { return "" }
