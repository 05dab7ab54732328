// Package cases reads acceptance cases and runs them against two real regions. The
// notation is described in README.md beside this file.
package cases
