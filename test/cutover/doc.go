// Package cutover holds the walks of docs/cutover.md, with real servers and the real program, under load.
package cutover
