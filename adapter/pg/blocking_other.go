//go:build !unix

package pg

import (
	"context"
	"net"
)

// DialBlocking dials an ordinary connection where there is no other.
func DialBlocking(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}
