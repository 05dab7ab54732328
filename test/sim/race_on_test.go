//go:build race

package sim

// shortSeeds is the share of an ordinary `go test`; the race detector makes a run ten times
// as long.
const shortSeeds = 200
