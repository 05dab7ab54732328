package tpcc

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	t.Parallel()
	out := []byte(`[Current] NEW_ORDER - Takes(s): 9.9, Count: 1, TPM: 1473.6, Sum(ms): 4913.4, Avg(ms): 20.3, Max(ms): 999.2
execute run failed, err exec UPDATE stock failed pq: deadlock detected
Finished
[Summary] DELIVERY - Takes(s): 9.9, Count: 243, TPM: 1473.6, Sum(ms): 4913.4, Avg(ms): 20.3, 50th(ms): 13.6, Max(ms): 134.2
[Summary] NEW_ORDER - Takes(s): 10.0, Count: 2612, TPM: 15723.2, Sum(ms): 14641.4, Avg(ms): 5.6, 50th(ms): 4.7, Max(ms): 65.0
[Summary] NEW_ORDER_ERR - Takes(s): 10.0, Count: 2, TPM: 12.0, Sum(ms): 14641.4, Avg(ms): 5.6, 50th(ms): 4.7, Max(ms): 1503.5
tpmC: 15723.0, tpmTotal: 34851.8, efficiency: 122263.0%
`)
	got, err := parse(out)
	want := Result{TpmC: 15723, Transactions: 2855, Longest: 1503500 * time.Microsecond, Deadlocks: 1, Errors: 2,
		First: "execute run failed, err exec UPDATE stock failed pq: deadlock detected"}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := parse([]byte("connection refused")); err == nil {
		t.Error("output without a summary was taken for a result")
	}
}
