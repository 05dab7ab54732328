package harness

import (
	"fmt"
	"os"
	"path/filepath"
)

// HoldSlot starts pg_recvlogical on a slot, so that nobody else can use it. It says
// nothing by itself, because what it says would confirm what it has thrown away. The caller kills the process.
func (k *Cluster) HoldSlot(dir, database, slot, publication string) (*Process, error) {
	return StartProcess(Spec{
		Name: "pg_recvlogical " + slot, Path: k.bin.Path("pg_recvlogical"), Log: filepath.Join(dir, "recvlogical.log"),
		Args: []string{
			"-d", k.DSN(database), "--slot", slot, "--start", "-f", "/dev/null", "--status-interval=0", "--fsync-interval=0",
			"-o", "proto_version=1", "-o", "publication_names=" + publication,
		},
	})
}

// PrependHBA puts a line in front of pg_hba.conf; the caller reloads the server.
func (k *Cluster) PrependHBA(line string) error {
	path := filepath.Join(k.DataDir, "pg_hba.conf")
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read pg_hba.conf: %w", err)
	}
	if err := os.WriteFile(path, append([]byte(line+"\n"), old...), 0o600); err != nil {
		return fmt.Errorf("write pg_hba.conf: %w", err)
	}
	return nil
}
