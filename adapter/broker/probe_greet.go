package broker

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// greeting is what a server says of itself before anybody logs in.
type greeting struct {
	version string
	leaf    bool // the port that regions link to
	tls     bool
	cert    *x509.Certificate // that it has shown
}

// how is the greeting in words.
func (g *greeting) how() string {
	text := ", without TLS"
	if g.tls {
		text = ", with TLS and a certificate that is good until " + day(g.cert.NotAfter)
	}
	return text
}

func (g *greeting) expiring(about string) []Probe {
	if !g.tls || time.Until(g.cert.NotAfter) > expirySoon {
		return nil
	}
	return []Probe{{about, Doubtful, "the certificate of the other side expires on " + day(g.cert.NotAfter), ""}}
}

// greet connects to a server, as far as the handshake of TLS, and goes again. wanted says that
// there has to be TLS.
func greet(ctx context.Context, u *url.URL, files TLS, wanted bool) (*greeting, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end)
	}
	const most = 64 << 10 // far above any real line
	line, err := bufio.NewReaderSize(conn, most).ReadSlice('\n')
	if err != nil && timedOut(err) && len(line) == 0 {
		return nil, fmt.Errorf("%w: it takes the connection and says nothing", errNoGreeting)
	}
	text, ok := strings.CutPrefix(string(line), "INFO ")
	if !ok {
		if err != nil && len(line) == 0 {
			return nil, fmt.Errorf("read greeting: %w", err)
		}
		return nil, errNoGreeting
	}
	var info struct {
		Version  string   `json:"version"`
		TLS      bool     `json:"tls_required"`
		Offers   bool     `json:"tls_available"`
		CID      uint64   `json:"client_id"`
		LeafURLs []string `json:"leafnode_urls"`
		OnJoin   bool     `json:"info_on_connect"`
	}
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		return nil, errNoGreeting
	}
	g := &greeting{version: info.Version, leaf: info.CID != 0 && (info.LeafURLs != nil || info.OnJoin), tls: info.TLS || wanted}
	if !g.tls {
		return g, nil
	}
	if wanted && !info.TLS && !info.Offers {
		return nil, errNoTLS
	}
	return g, g.handshake(ctx, conn, u.Hostname(), files)
}

// handshake looks at the certificate of the other side, and shows ours.
func (g *greeting) handshake(ctx context.Context, conn net.Conn, host string, files TLS) error {
	cfg, err := files.config(false)
	if err != nil {
		return err
	}
	cfg.ServerName = host
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	g.cert = secure.ConnectionState().PeerCertificates[0]
	// Since TLS 1.3 the other side says only afterwards whether it likes our certificate.
	const hearing = time.Second
	_ = secure.SetReadDeadline(time.Now().Add(hearing))
	var alert tls.AlertError
	if _, err := secure.Read(make([]byte, 1)); err != nil && (errors.As(err, &alert) || strings.Contains(err.Error(), "remote error")) {
		return fmt.Errorf("TLS: %w", err)
	}
	return nil
}
