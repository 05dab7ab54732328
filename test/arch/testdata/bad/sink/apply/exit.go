package apply

import (
	"os"
	"os/signal"
	sys "testing"

	"github.com/pgwaltz/pgwaltz/internal/sidecar"
)

var _ = sidecar.New
var _ sys.TB

func Stop() {
	signal.Ignore()
	os.Exit(1)
}

const counts = `select count(*) from pgwaltz.parked join pgwaltz.nobodys using (id)`
