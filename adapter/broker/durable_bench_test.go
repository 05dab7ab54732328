//go:build unix

package broker

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// BenchmarkPublish stores one frame of 1 kB after the other, and says what each costs the process.
func BenchmarkPublish(b *testing.B) {
	for name, always := range map[string]bool{"behind": false, "each": true} {
		b.Run(name, func(b *testing.B) {
			k, err := New(Config{Cluster: "test", Region: "eu", MaxBytes: 1 << 30, StoreDir: b.TempDir(), SyncAlways: always})
			if err != nil {
				b.Fatal(err)
			}
			if err := k.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			defer k.Close()
			js, err := k.OwnJS()
			if err != nil {
				b.Fatal(err)
			}
			if _, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "PGWALTZ_test_eu", Subjects: []string{"pgwaltz.test.eu"}, MaxBytes: 1 << 30}); err != nil {
				b.Fatal(err)
			}
			end := make(chan struct{})
			var wg sync.WaitGroup
			defer wg.Wait()
			defer close(end)
			wg.Go(func() {
				for k.Lazy() {
					select {
					case <-end:
						return
					case <-time.After(250 * time.Millisecond):
						_ = k.Sync("PGWALTZ_test_eu") // what it costs counts
					}
				}
			})
			data := make([]byte, 1024)
			before := usage()
			b.ResetTimer()
			for range b.N {
				if _, err := js.Publish(b.Context(), "pgwaltz.test.eu", data); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			after := usage()
			b.ReportMetric(float64(after.cpu-before.cpu)/float64(b.N)/1000, "cpu-µs/frame")
			b.ReportMetric(float64(after.switches-before.switches)/float64(b.N), "switches/frame")
		})
	}
}

type used struct {
	cpu      time.Duration
	switches int64
}

func usage() used {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return used{time.Duration(r.Utime.Nano() + r.Stime.Nano()), int64(r.Nvcsw + r.Nivcsw)}
}
