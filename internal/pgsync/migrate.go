package pgsync

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/pgwaltz/pgwaltz/internal/config"
)

// Migration says how the configurations of both regions are to be made of a job.
type Migration struct {
	Job     string // "" where the file has one
	Cluster string // "" for the job's name
	// Regions are the names of the source's and the destination's region.
	Regions [2]string
	// Link is the address, HOST:PORT, at which the source's sidecar listens for the destination's.
	Link string
}

// The part of a sidecar's configuration that a job knows of.
type (
	regionFile struct {
		Cluster  string     `yaml:"cluster"`
		Region   string     `yaml:"region"`
		Postgres regionDB   `yaml:"postgres"`
		Peers    []peerOf   `yaml:"peers"`
		Tables   tablesOf   `yaml:"tables"`
		NATS     regionNATS `yaml:"nats"`
	}
	regionDB struct {
		DSN string `yaml:"dsn"`
	}
	peerOf struct {
		Region string `yaml:"region"`
	}
	tablesOf struct {
		Include []string `yaml:"include,flow"`
	}
	regionNATS struct {
		Listen string   `yaml:"listen,omitempty"`
		Dial   []string `yaml:"dial,flow,omitempty"`
	}
)

// Migrate makes the sidecar configurations of the source's and the destination's region of one job, as text. They hold the passwords of
// the DSNs. What a two-way region cannot take over from the job is in notes, one sentence each.
func Migrate(f *File, m Migration) (files [2][]byte, notes []string, err error) {
	job, err := f.pick(m.Job)
	if err != nil {
		return files, nil, err
	}
	cluster := m.Cluster
	if cluster == "" {
		cluster = nameOf(job.Name)
	}
	if m.Regions[0] == m.Regions[1] {
		return files, nil, &ConfigError{f.Path, "both regions are called " + m.Regions[0], "give --source-region and --destination-region"}
	}
	for _, name := range []string{cluster, m.Regions[0], m.Regions[1]} {
		if name != nameOf(name) {
			return files, nil, &ConfigError{f.Path, fmt.Sprintf("%q cannot be the name of a cluster or a region", name), "use a-z, 0-9 and -, at most 32 of them"}
		}
	}
	var include []string
	for _, t := range job.Tables {
		include = append(include, quotedPart(t.Name.Schema)+"."+quotedPart(t.Name.Name))
		if t.Columns != nil {
			notes = append(notes, fmt.Sprintf("%s: a region replicates all columns, not the listed ones alone", t.Name))
		}
		if !t.Delete {
			notes = append(notes, fmt.Sprintf("%s: deletes are replicated from then on, which delete: false kept back", t.Name))
		}
	}
	dsns := [2]config.Secret{job.Source, job.Destination}
	for i := range files {
		r := regionFile{Cluster: cluster, Region: m.Regions[i], Postgres: regionDB{dsns[i].Reveal()}, Peers: []peerOf{{m.Regions[1-i]}}, Tables: tablesOf{include}}
		if i == 0 {
			_, port, ok := cutPort(m.Link)
			if !ok {
				return files, nil, &ConfigError{f.Path, fmt.Sprintf("the link %q is no HOST:PORT", m.Link), "give --link HOST:PORT of the source's sidecar"}
			}
			r.NATS.Listen = "127.0.0.1:" + port
		} else {
			r.NATS.Dial = []string{"nats://" + m.Link}
		}
		var b bytes.Buffer
		e := yaml.NewEncoder(&b)
		e.SetIndent(2)
		if err := errors.Join(e.Encode(&r), e.Close()); err != nil {
			return files, nil, fmt.Errorf("write the configuration of %s: %w", r.Region, err)
		}
		files[i] = b.Bytes()
	}
	notes = append(notes, "the link is for one machine, or a tunnel; one between machines needs nats.tls on both sides, or the sidecars refuse to start: see docs/security.md")
	return files, notes, nil
}

func (f *File) pick(name string) (*Job, error) {
	var names []string
	for i := range f.Jobs {
		if f.Jobs[i].Name == name || name == "" && len(f.Jobs) == 1 {
			return &f.Jobs[i], nil
		}
		names = append(names, f.Jobs[i].Name)
	}
	return nil, &ConfigError{f.Path, fmt.Sprintf("no job %q", name), "give --job, one of " + strings.Join(names, ", ")}
}

var notInNames = regexp.MustCompile(`[^a-z0-9-]+`)

// nameOf makes a name for a cluster of any text.
func nameOf(s string) string {
	s = strings.Trim(notInNames.ReplaceAllString(strings.ToLower(s), "-"), "-")
	if len(s) > 32 {
		s = strings.Trim(s[:32], "-")
	}
	if s == "" {
		return "pgwaltz"
	}
	return s
}

var plainName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

func quotedPart(s string) string {
	if plainName.MatchString(s) {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

func cutPort(link string) (host, port string, ok bool) {
	i := strings.LastIndexByte(link, ':')
	if i <= 0 || i == len(link)-1 {
		return "", "", false
	}
	return link[:i], link[i+1:], true
}
