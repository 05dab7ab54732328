package main

import (
	"github.com/spf13/cobra"

	"github.com/pgwaltz/pgwaltz/internal/config"
)

// needsConfig adds --config to c and the commands below it. What it returns loads the file,
// with env over it.
func needsConfig(c *cobra.Command, env []string) (load func() (*config.Config, error)) {
	file := c.PersistentFlags().String("config", "", "the configuration of the region")
	takes(c.PersistentFlags(), "config", "FILE")
	c.MarkPersistentFlagFilename("config", "yaml", "yml")
	return func() (*config.Config, error) { return config.Load(*file, env) }
}
