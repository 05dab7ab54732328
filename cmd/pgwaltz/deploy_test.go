package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/pgwaltz/pgwaltz/internal/config"
)

const deployDir = "../../deploy"

// TestDeployConfigs holds the shipped configurations against the loader.
func TestDeployConfigs(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, region := range []string{"eu", "us"} {
		text, err := os.ReadFile(filepath.Join(deployDir, region+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var file struct{ Postgres struct{ DSN string } }
		if err := yaml.Unmarshal(text, &file); err != nil {
			t.Fatal(err)
		}
		// The authority is not here, and the loader would want to read it.
		dsn, authority := strings.CutSuffix(file.Postgres.DSN, " sslmode=verify-full sslrootcert=/run/secrets/ca")
		if !authority {
			t.Errorf("region %s does not verify its server: %s", region, dsn)
		}
		c, err := config.Load(filepath.Join(deployDir, region+".yaml"), []string{
			"PGWALTZ_POSTGRES_DSN=" + dsn, "PGWALTZ_POSTGRES_PASSWORD_FILE=" + secret, "PGWALTZ_POSTGRES_ADMIN_DSN=host=x user=postgres",
			"PGWALTZ_NATS_TLS_CERT_FILE=" + secret, "PGWALTZ_NATS_TLS_KEY_FILE=" + secret, "PGWALTZ_NATS_TLS_CA_FILE=" + secret,
		})
		if err != nil {
			t.Error(err)
			continue
		}
		if c.Region != region || len(c.Peers) != 1 || c.HTTP.Listen != "127.0.0.1:8422" {
			t.Errorf("region %s: %+v", region, c.Peers)
		}
		if user := c.Postgres.DSN.User(); user != "pgwaltz" || c.NATS.Insecure || len(c.Warnings()) > 0 {
			t.Errorf("region %s: the role is %q, insecure %v, warnings %v", region, user, c.NATS.Insecure, c.Warnings())
		}
	}
}

// TestComposeRefersToWhatIsThere checks what `docker compose config` would: every name that
// a service uses is defined, and every file is there.
func TestComposeRefersToWhatIsThere(t *testing.T) {
	t.Parallel()
	type service struct {
		Image   string
		Secrets []any // a name, or a mapping with its source
		Volumes []string
		Configs []struct{ Source, Target string }
		Depends map[string]struct{ Condition string } `yaml:"depends_on"`
	}
	var compose struct {
		Services map[string]service
		Configs  map[string]struct{ File string }
		Secrets  map[string]struct{ File string }
		Volumes  map[string]any
	}
	b, err := os.ReadFile(filepath.Join(deployDir, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &compose); err != nil {
		t.Fatal(err)
	}
	if len(compose.Services) != 6 {
		t.Errorf("%d services", len(compose.Services))
	}
	for name, s := range compose.Services {
		if s.Image == "" {
			t.Errorf("service %s has no image", name)
		}
		for _, secret := range s.Secrets {
			source, ok := secret.(string)
			if m, is := secret.(map[string]any); is {
				source, ok = m["source"].(string)
			}
			if !ok || compose.Secrets[source].File == "" {
				t.Errorf("service %s: no secret %v", name, secret)
			}
		}
		for _, v := range s.Volumes {
			volume, _, _ := strings.Cut(v, ":")
			if _, ok := compose.Volumes[volume]; !ok {
				t.Errorf("service %s: no volume %s", name, volume)
			}
		}
		for _, c := range s.Configs {
			if _, err := os.Stat(filepath.Join(deployDir, compose.Configs[c.Source].File)); err != nil || compose.Configs[c.Source].File == "" {
				t.Errorf("service %s: config %s: %v", name, c.Source, err)
			}
		}
		for other, d := range s.Depends {
			if _, ok := compose.Services[other]; !ok || d.Condition == "" {
				t.Errorf("service %s depends on %s", name, other)
			}
		}
	}
}

// The service for systemd runs the command as it is, keeps the stream where the default is, and
// has time to stop.
func TestServiceFitsTheProgram(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(deployDir, "pgwaltz@.service"))
	if err != nil {
		t.Fatal(err)
	}
	setting := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			setting[key] = value
		}
	}
	words := strings.Fields(setting["ExecStart"])
	if len(words) != 4 || words[1] != "run" || words[2] != "--config" || setting["User"] != "pgwaltz" || setting["StateDirectory"] != "pgwaltz" {
		t.Errorf("%v", setting)
	}
	base := []string{"PGWALTZ_CLUSTER=c", "PGWALTZ_REGION=eu", "PGWALTZ_PEERS=us", "PGWALTZ_POSTGRES_DSN=host=x user=y", "PGWALTZ_NATS_LISTEN=127.0.0.1:7422"}
	plain, err := config.Load("", base)
	if err != nil {
		t.Fatal(err)
	}
	// What systemd sets for the service must not lead away from where the commands look.
	served, err := config.Load("", append(base, "STATE_DIRECTORY=/var/lib/"+setting["StateDirectory"]))
	if err != nil {
		t.Fatal(err)
	}
	if plain.NATS.StoreDir != served.NATS.StoreDir {
		t.Errorf("the service keeps its stream in %s, and the commands look in %s", served.NATS.StoreDir, plain.NATS.StoreDir)
	}
	stop, err := time.ParseDuration(setting["TimeoutStopSec"])
	if err != nil || stop <= time.Duration(plain.ShutdownTimeout) {
		t.Errorf("TimeoutStopSec %s is not above shutdown_timeout %s", setting["TimeoutStopSec"], plain.ShutdownTimeout)
	}
}
