package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/pgwaltz/pgwaltz/internal/status"
)

const maxStatus = 4 << 20 // far above any real answer

// Address turns the configured listen address into one that can be dialled: a wildcard
// host becomes loopback, and port 0 is looked up in the address file.
func Address(listen, addressFile string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("read http address %q: %w", listen, err)
	}
	if port == "0" {
		if addressFile == "" {
			return "", fmt.Errorf("find the sidecar: http.listen has port 0")
		}
		b, err := os.ReadFile(addressFile)
		if err != nil {
			return "", fmt.Errorf("find the sidecar, which writes its address there since http.listen has port 0: %w", err)
		}
		if host, port, err = net.SplitHostPort(strings.TrimSpace(string(b))); err != nil {
			return "", fmt.Errorf("find the sidecar: read %s: %w", addressFile, err)
		}
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// Fetch reads /status of the sidecar at address. It waits at most five seconds.
func Fetch(ctx context.Context, address string) (status.Status, error) {
	var st status.Status
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/status", nil)
	if err != nil {
		return st, fmt.Errorf("read status: %w", err)
	}
	// A transport of its own: no proxy from the environment, nothing left open.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return st, fmt.Errorf("read status: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return st, fmt.Errorf("read status from %s: %s", address, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&st); err != nil {
		return st, fmt.Errorf("read status from %s: %w", address, err)
	}
	return st, nil
}
