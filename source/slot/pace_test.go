package slot

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/pgwaltz/pgwaltz/adapter/pg"
)

// selfSigned makes a certificate of our own.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestPaceNeverHoldsABacklogUp: a server that is ahead and sends records of 4 kB is read without
// a pause, below TLS too. A pause for each record once made the reader a hundred times slower.
func TestPaceNeverHoldsABacklogUp(t *testing.T) {
	t.Parallel()
	const record, total = 4 << 10, 16 << 20
	cert := selfSigned(t)
	for name, wrap := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				if wrap {
					c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
				}
				for sent := 0; sent < total; sent += record {
					if _, err := c.Write(make([]byte, record)); err != nil {
						return
					}
				}
			}()
			conn, err := pg.DialQuiet(t.Context(), "tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if wrap {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			}
			defer conn.Close()
			in, below, p := bufio.NewReaderSize(conn, readBuffer), bufferOf(conn), pace{window: time.Now()}
			rounds := 0
			for read := 0; read < total; rounds++ {
				// As connection.receive does: messages of some hundred bytes, until nothing is left.
				got := 0
				for first := true; first || in.Buffered() > 0 || below.Buffered() > 0; first = false {
					n, err := in.Discard(min(256, max(in.Buffered(), 1)))
					if err != nil {
						t.Fatal(err)
					}
					read += n
					got++
				}
				if below.Drained() {
					p.breathe(got)
				}
			}
			if p.pauses > total/record/20 {
				t.Errorf("%d pauses and %d rounds for %d records", p.pauses, rounds, total/record)
			}
			t.Logf("%d rounds, %d pauses", rounds, p.pauses)
		})
	}
}

// TestPaceGathersSingleMessages: messages that come one by one are waited for a moment.
func TestPaceGathersSingleMessages(t *testing.T) {
	t.Parallel()
	p := pace{window: time.Now().Add(time.Hour)} // the window does not end, however slow the test is
	for range 100 {
		p.breathe(1)
		p.window = time.Now().Add(time.Hour)
	}
	if p.pauses < 50 {
		t.Errorf("%d pauses", p.pauses)
	}
	slow := pace{}
	for range 100 {
		slow.window = time.Time{}
		slow.breathe(1)
	}
	if slow.pauses != 0 {
		t.Errorf("%d pauses at a low rate", slow.pauses)
	}
}
