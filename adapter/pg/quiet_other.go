//go:build !linux

package pg

import (
	"context"
	"net"
)

// DialQuiet dials a connection for many small messages; here it is an ordinary one.
func DialQuiet(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}
