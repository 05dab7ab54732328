package cutover

import (
	"testing"

	"github.com/pgwaltz/pgwaltz/test/pgtest"
)

var server pgtest.Server

func TestMain(m *testing.M) { pgtest.Main(m, &server) }
