package sink

import (
	"os"
	"os/signal"
	sys "testing"

	"github.com/pgwaltz/pgwaltz/internal/app"
)

var _ = app.New
var _ sys.TB

func Stop() {
	signal.Ignore()
	os.Exit(1)
}
