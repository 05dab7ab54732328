package copy

import (
	"fmt"
	"strconv"
	"strings"
)

// A cursor is the key of the last row of a chunk. In pgwaltz.copy it stands as a list of
// lengths and texts, so that no value needs quoting.

func formatCursor(key []string) string {
	var b strings.Builder
	for _, k := range key {
		fmt.Fprintf(&b, "%d:%s", len(k), k)
	}
	return b.String()
}

// parseCursor returns nil, the beginning of the table, for a text that is none of ours or has
// not as many values as the key has columns.
func parseCursor(s *string, columns int) []string {
	if s == nil {
		return nil
	}
	rest := *s
	var key []string
	for rest != "" {
		n, tail, ok := strings.Cut(rest, ":")
		size, err := strconv.Atoi(n)
		if !ok || err != nil || size < 0 || size > len(tail) {
			return nil
		}
		key = append(key, tail[:size])
		rest = tail[size:]
	}
	if len(key) != columns {
		return nil
	}
	return key
}
