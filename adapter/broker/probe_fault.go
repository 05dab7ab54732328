package broker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

// fault is why the other side could not be reached, in words.
type fault struct {
	grade  Grade
	what   string
	remedy string
}

// errNoGreeting: somebody takes the connection and says nothing that NATS would say.
var errNoGreeting = errors.New("it is no NATS server")

// errNoTLS: we want TLS and the other side does not offer it.
var errNoTLS = errors.New("it offers no TLS")

// name finds words for an error of connecting to host. What time may mend is doubtful, the rest fails.
func name(err error, host string, files TLS) fault {
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		alert     tls.AlertError
		plain     tls.RecordHeaderError
		lookup    *net.DNSError
	)
	const listening = "look whether the other side runs and listens there, and at firewalls on the way"
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		if cert := invalid.Cert; cert != nil && time.Now().Before(cert.NotBefore) {
			return fault{Fails, "its certificate is valid only from " + day(cert.NotBefore), "look at the clocks of both sides"}
		} else if cert != nil {
			return fault{Fails, "its certificate has expired on " + day(cert.NotAfter), "renew the certificate of the other side"}
		}
		return fault{Fails, "its certificate has expired", "renew the certificate of the other side"}
	case errors.As(err, &hostname):
		names := hostname.Certificate.DNSNames
		for _, ip := range hostname.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		return fault{Fails, fmt.Sprintf("its certificate is not for the host name %s, but for %s", hostname.Host, either(list(names), "none")), "connect by one of these names, or issue a certificate with this one"}
	case errors.As(err, &authority):
		if files.CAFile == "" {
			return fault{Fails, "its certificate is signed by an authority that this machine does not know", "name the file of that authority in nats.tls.ca_file"}
		}
		return fault{Fails, "its certificate is signed by an authority that is not in " + files.CAFile, "put the authority of the other side into nats.tls.ca_file"}
	case errors.As(err, &invalid):
		return fault{Fails, "its certificate cannot be used: " + invalid.Error(), "issue it anew, as a certificate for servers"}
	case errors.As(err, &alert):
		return refusedByPeer(alert.Error())
	case strings.Contains(err.Error(), "remote error: tls: "):
		_, text, _ := strings.Cut(err.Error(), "remote error: ")
		return refusedByPeer(text)
	case errors.Is(err, errNoTLS), errors.As(err, &plain), errors.Is(err, nats.ErrSecureConnWanted):
		return fault{Fails, "it offers no TLS, and TLS is configured here", "give the other side nats.tls.cert_file and key_file, or take nats.tls out here"}
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired),
		strings.Contains(err.Error(), "Authorization Violation"), strings.Contains(err.Error(), "Authentication"):
		return fault{Fails, "the login is refused: " + strings.TrimPrefix(err.Error(), "nats: "), "give the other side's user, password, NKey or certificate; its log names the reason"}
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return fault{Fails, "there is no host of this name: " + lookup.Name, "correct the address, or look at DNS"}
	case errors.As(err, &lookup):
		return fault{Doubtful, "the host name cannot be looked up: " + lookup.Err, "look at DNS"}
	case errors.Is(err, errNoGreeting):
		return fault{Fails, err.Error(), "correct the address: another program answers there"}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, nats.ErrNoServers):
		return fault{Doubtful, "the connection is refused: nothing listens there", listening}
	case timedOut(err):
		return fault{Doubtful, fmt.Sprintf("it does not answer within %s", probeTimeout), listening}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return fault{Doubtful, "there is no route to it", "look at the network, and at IPv6 if the name has such an address"}
	case errors.Is(err, syscall.ECONNRESET), strings.HasSuffix(err.Error(), "EOF"):
		return fault{Doubtful, "it ends the connection at once", "something between the two may refuse it; look at the log of the other side"}
	}
	return fault{Doubtful, host + " cannot be used: " + err.Error(), listening}
}

// refusedByPeer is for an alert of TLS: the other side does not like what we show.
func refusedByPeer(text string) fault {
	text = strings.TrimPrefix(strings.TrimPrefix(text, "remote error: "), "tls: ")
	f := fault{Fails, "it refuses our certificate: " + text, "issue nats.tls.cert_file by an authority that the other side trusts"}
	switch {
	case strings.Contains(text, "certificate required"), strings.Contains(text, "handshake failure"):
		f.what, f.remedy = "it requires a certificate of us: "+text, "set nats.tls.cert_file and key_file"
	case strings.Contains(text, "expired"):
		f.what, f.remedy = "our certificate has expired, it says", "renew nats.tls.cert_file, and look at the clocks"
	}
	return f
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, syscall.ETIMEDOUT) || errors.As(err, &n) && n.Timeout()
}

func either(a, b string) string {
	if a == "" {
		return b
	}
	return a
}
