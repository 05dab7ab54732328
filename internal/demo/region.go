package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgwaltz/pgwaltz/internal/pgcluster"
)

const database = "accounts"

// region is one side: its database, its sidecar, and what the workload knows of it.
type region struct {
	name    string
	peer    string
	dir     string
	cluster *pgcluster.Cluster
	pool    *pgxpool.Pool
	sidecar *sidecar
	http    string // the sidecar's address
	people  *people
}

var configTemplate = template.Must(template.New("config").Parse(`# Region {{.Region}} of the demo.
cluster: demo
region: {{.Region}}
postgres:
  dsn: "{{.DSN}}"
peers:
  - region: {{.Peer}}
tables:
  include: ["public.*"]
audit:
  redact: ["public.users.password"]
nats:
  listen: "{{.Listen}}"
{{- if .Dial}}
  dial: ["nats-leaf://{{.Dial}}"]
{{- end}}
  store_dir: "{{.Store}}"
  max_bytes: 256MiB
http:
  listen: "{{.HTTP}}"
`))

// createDatabase makes the database, the schema and the pool.
func (r *region) createDatabase(ctx context.Context) error {
	admin, err := pgx.Connect(ctx, r.cluster.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("connect to region %s: %w", r.name, err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+database); err != nil {
		return fmt.Errorf("create database in region %s: %w", r.name, err)
	}
	config, err := pgxpool.ParseConfig(r.cluster.DSN(database))
	if err != nil {
		return fmt.Errorf("connect to region %s: %w", r.name, err)
	}
	config.MaxConns = workersPerRegion + 7 // prober both ways, drain, comparison, feed
	config.ConnConfig.RuntimeParams["application_name"] = "account service"
	if r.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return fmt.Errorf("connect to region %s: %w", r.name, err)
	}
	for _, sql := range []string{pgcryptoIfAvailable, accountSchema} {
		if _, err := r.pool.Exec(ctx, sql); err != nil {
			return fmt.Errorf("create schema in region %s: %w", r.name, err)
		}
	}
	return nil
}

// writeConfig writes the sidecar's configuration and returns its path.
func (r *region) writeConfig(listen, dial string) (string, error) {
	path := filepath.Join(r.dir, "pgwaltz.yaml")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return "", fmt.Errorf("write config of region %s: %w", r.name, err)
	}
	err = configTemplate.Execute(f, map[string]string{
		"Region": r.name, "Peer": r.peer, "DSN": r.cluster.DSN(database), "Listen": listen, "Dial": dial,
		"Store": filepath.Join(r.dir, "jetstream"), "HTTP": r.http,
	})
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", fmt.Errorf("write config of region %s: %w", r.name, err)
	}
	return path, nil
}
