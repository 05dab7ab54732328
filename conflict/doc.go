// Package conflict decides which of two writes of one row stays.
package conflict
