package harness

import (
	"os"
	"testing"
)

// Main is the TestMain of a package that starts regions: it runs the tests, removes what they have in common, and ends the process.
func Main(m *testing.M) {
	RunChild()
	code := m.Run()
	RemoveProduct()
	RemoveTemplates()
	os.Exit(code)
}
