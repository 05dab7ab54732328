package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
)

// Upgrade runs pg_upgrade from this version to this version: the same databases on a new server, with another
// system identifier, without slots, replication origins and commit times, at the same address and with the same
// settings. The cluster must be stopped in order, and is stopped afterwards.
func (k *Cluster) Upgrade(ctx context.Context) error {
	if k.Running() {
		return fmt.Errorf("upgrade cluster %s: it runs", k.Name)
	}
	if k.mount != "" {
		return fmt.Errorf("upgrade cluster %s: it lies on a tmpfs", k.Name)
	}
	cred, err := serverUser()
	if err != nil {
		return err
	}
	made, err := templates.fresh(k.bin)
	if err != nil {
		return err
	}
	fresh := k.DataDir + "-new"
	if err := os.Rename(made, fresh); err != nil {
		return fmt.Errorf("place the new data folder of %s: %w", k.Name, err)
	}
	for _, name := range []string{"postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pgwaltz.conf"} {
		if out, err := exec.CommandContext(ctx, "cp", "-a", filepath.Join(k.DataDir, name), fresh).CombinedOutput(); err != nil {
			return fmt.Errorf("copy %s of cluster %s: %w: %s", name, k.Name, err, out)
		}
	}
	port, err := pgcluster.FreePort()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, k.bin.Path("pg_upgrade"), "-b", k.bin.Dir, "-B", k.bin.Dir, "-d", k.DataDir, "-D", fresh,
		"-p", fmt.Sprint(k.Port), "-P", fmt.Sprint(port), "-s", k.sockDir, "-U", "postgres", "--link")
	cmd.Dir, cmd.Env = k.sockDir, append(os.Environ(), "LC_ALL=C.UTF-8", "PGDATA=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run pg_upgrade of cluster %s: %w: %s", k.Name, err, out)
	}
	if err := os.RemoveAll(k.DataDir); err != nil {
		return fmt.Errorf("remove the old data folder of %s: %w", k.Name, err)
	}
	if err := os.Rename(fresh, k.DataDir); err != nil {
		return fmt.Errorf("put the new data folder of %s in its place: %w", k.Name, err)
	}
	return nil
}
