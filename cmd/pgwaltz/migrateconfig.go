package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/internal/pgsync"
	"github.com/pgwaltz/pgwaltz/internal/visible"
)

const migrateAbout = `Writes the configurations of two regions, of one job of a pgsync file: REGION.yaml for the source
and for the destination. They replicate in both directions. The files hold the passwords that the
job has, and nobody else may read them. A file that is there is not written over.

Before the sidecars start: pgwaltz setup for the source, then stop the cron line, run pgsync once
more, then with --forget, and pgwaltz setup for the destination.`

func newMigrateConfig() *cobra.Command {
	c := exits(&cobra.Command{
		Use:   "migrate-config --from FILE [--job NAME]",
		Short: "make the configurations of two regions of a pgsync file",
		Long:  migrateAbout,
		Args:  noWords,
	}, exitOK, exitOther, exitUsage, exitConfig)
	from := c.Flags().String("from", "", "the file with the jobs")
	takes(c.Flags(), "from", "FILE")
	m := pgsync.Migration{}
	c.Flags().StringVar(&m.Job, "job", "", "the job, where the file has several")
	takes(c.Flags(), "job", "NAME")
	c.Flags().StringVar(&m.Cluster, "cluster", "", "the name that both regions share; the job's by default")
	takes(c.Flags(), "cluster", "NAME")
	c.Flags().StringVar(&m.Regions[0], "source-region", "source", "the name of the source's region")
	takes(c.Flags(), "source-region", "NAME")
	c.Flags().StringVar(&m.Regions[1], "destination-region", "destination", "the name of the destination's region")
	takes(c.Flags(), "destination-region", "NAME")
	c.Flags().StringVar(&m.Link, "link", "127.0.0.1:7422", "where the destination's sidecar reaches the source's")
	takes(c.Flags(), "link", "HOST:PORT")
	dir := c.Flags().String("into", ".", "the folder for the files")
	takes(c.Flags(), "into", "FOLDER")
	c.RunE = func(c *cobra.Command, _ []string) error {
		file, err := pgsync.Load(*from)
		if err != nil {
			return err
		}
		texts, notes, err := pgsync.Migrate(file, m)
		if err != nil {
			return err
		}
		for i, text := range texts {
			path := filepath.Join(*dir, m.Regions[i]+".yaml")
			if err := writeNew(path, text); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), visible.Lines(path))
		}
		for _, n := range notes {
			fmt.Fprintln(c.ErrOrStderr(), visible.Lines(n))
		}
		return nil
	}
	return c
}

// writeNew writes a file that must not be there yet.
func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	_, err = f.Write(text)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
