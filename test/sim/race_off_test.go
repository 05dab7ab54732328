//go:build !race

package sim

// shortSeeds is the share of an ordinary `go test`.
const shortSeeds = 2000
