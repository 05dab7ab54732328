// Package fallback holds the walks between the modes, with real servers and the real program, under load.
package fallback
