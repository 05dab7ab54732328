//go:build tools

// Package gotpc holds the version of go-tpc that package tpcc builds.
package gotpc

import _ "github.com/pingcap/go-tpc/cmd/go-tpc"
