package pgsync

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v4"

	"github.com/pgwaltz/pgwaltz/internal/config"
	"github.com/pgwaltz/pgwaltz/source/poll"
	"github.com/pgwaltz/pgwaltz/wal"
)

// maxFile bounds what is read of a file: a wrong name may mean a disk.
const maxFile = 4 << 20

// maxBatch is the largest batch_size: a batch is in memory.
const maxBatch = 100_000

// File is the configuration, as it is read. DSNs are secrets.
type File struct {
	Path string
	Jobs []Job // by name
}

// Job is one job with the defaults filled in.
type Job struct {
	Name                string
	Source, Destination config.Secret
	Schema              string
	Tables              []Table // by name
	BatchSize           int
	Snapshot            bool
	// PollInterval is the time between two runs; 0: one run.
	PollInterval time.Duration
}

// Table is one table of a job.
type Table struct {
	poll.Wish
	Delete bool
}

// ConfigError is a mistake in the file.
type ConfigError struct{ File, What, Remedy string }

func (e *ConfigError) Error() string { return e.File + ": " + e.What }

// Hint says what to write.
func (e *ConfigError) Hint() string { return e.Remedy }

// ExitCode is that of a wrong configuration.
func (e *ConfigError) ExitCode() int { return 3 }

// The file as YAML has it. What is missing is nil.
type (
	yamlFile struct {
		Jobs     map[string]*yamlJob `yaml:"jobs"`
		yamlKeys `yaml:",inline"`
	}
	yamlJob struct {
		Source      yamlEnd `yaml:"source"`
		Destination yamlEnd `yaml:"destination"`
		yamlKeys    `yaml:",inline"`
		Tables      map[string]*yamlTable `yaml:"tables"`
	}
	yamlKeys struct {
		Schema       *string   `yaml:"schema"`
		BatchSize    *int      `yaml:"batch_size"`
		Snapshot     *bool     `yaml:"snapshot"`
		PollInterval *duration `yaml:"poll_interval"`
	}
	yamlEnd struct {
		DSN string `yaml:"dsn"`
	}
	yamlTable struct {
		Delete  bool     `yaml:"delete"`
		Columns []string `yaml:"columns"`
	}
)

// duration is 30s, 5m, or a number of seconds.
type duration time.Duration

func (d *duration) UnmarshalYAML(n *yaml.Node) error {
	if s, err := strconv.Atoi(n.Value); err == nil && s >= 0 {
		*d = duration(time.Duration(s) * time.Second)
		return nil
	}
	t, err := time.ParseDuration(n.Value)
	if err != nil || t < 0 {
		return fmt.Errorf("line %d: %q is no time such as 30s or 5m", n.Line, n.Value)
	}
	*d = duration(t)
	return nil
}

// Load reads the file and checks it.
func Load(path string) (*File, error) {
	if path == "" {
		return nil, &ConfigError{"pgsync", "no configuration is given", "pgsync --config FILE"}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, unreadable(path, err)
	}
	return parse(path, text)
}

func unreadable(path string, err error) error {
	var at *os.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	return &ConfigError{path, "cannot be read: " + err.Error(), "give the file with --config, by its absolute path in a crontab"}
}

func parse(path string, text []byte) (*File, error) {
	var y yamlFile
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&y); err != nil && !errors.Is(err, io.EOF) {
		return nil, &ConfigError{path, "is not understood: " + oneLine(err), "the keys are listed in docs/pgsync.md"}
	}
	out := &File{Path: path}
	if len(y.Jobs) == 0 {
		return nil, &ConfigError{path, "has no jobs", "write jobs: with a name and its source, destination and tables below it"}
	}
	for _, name := range slices.Sorted(maps.Keys(y.Jobs)) {
		j, err := y.job(name)
		if err != nil {
			return nil, &ConfigError{path, "jobs." + name + ": " + err.Error(), "see docs/pgsync.md"}
		}
		out.Jobs = append(out.Jobs, *j)
	}
	return out, nil
}

// oneLine makes a line of what the parser says, for a log that is read by lines.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

func (y *yamlFile) job(name string) (*Job, error) {
	from := y.Jobs[name]
	if from == nil {
		return nil, errors.New("is empty")
	}
	j := &Job{Name: name, Schema: "public", BatchSize: 5000, Snapshot: true}
	for _, k := range []yamlKeys{y.yamlKeys, from.yamlKeys} {
		if k.Schema != nil {
			j.Schema = *k.Schema
		}
		if k.BatchSize != nil {
			j.BatchSize = *k.BatchSize
		}
		if k.Snapshot != nil {
			j.Snapshot = *k.Snapshot
		}
		if k.PollInterval != nil {
			j.PollInterval = time.Duration(*k.PollInterval)
		}
	}
	for _, end := range []struct {
		key, dsn string
		to       *config.Secret
	}{{"source", from.Source.DSN, &j.Source}, {"destination", from.Destination.DSN, &j.Destination}} {
		if end.dsn == "" {
			return nil, fmt.Errorf("%s.dsn is missing", end.key)
		}
		if _, err := pgx.ParseConfig(end.dsn); err != nil { // the parser's words may repeat a password
			return nil, fmt.Errorf("%s.dsn is no connection string", end.key)
		}
		*end.to = config.NewSecret(end.dsn)
	}
	switch {
	case j.Schema == "":
		return nil, errors.New("schema is empty")
	case j.BatchSize < 1 || j.BatchSize > maxBatch:
		return nil, fmt.Errorf("batch_size %d is not between 1 and %d", j.BatchSize, maxBatch)
	case len(from.Tables) == 0:
		return nil, errors.New("tables is empty")
	}
	for _, name := range slices.Sorted(maps.Keys(from.Tables)) {
		t := Table{Wish: poll.Wish{Name: wal.RelationName{Schema: j.Schema, Name: name}}}
		if o := from.Tables[name]; o != nil {
			t.Delete, t.Columns = o.Delete, o.Columns
			if o.Columns != nil && len(o.Columns) == 0 {
				return nil, fmt.Errorf("tables.%s.columns is empty; leave it out for all columns", name)
			}
		}
		j.Tables = append(j.Tables, t)
	}
	return j, nil
}
