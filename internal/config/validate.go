package config

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// validate collects everything that is wrong with the values, each group in its own file.
func (c *Config) validate(p *problems) {
	c.validateNames(p)
	c.validatePostgres(p)
	c.validateTables(p)
	c.validateNATS(p)
	c.validatePublish(p)
	c.validateFallback(p)
	c.validateRest(p)
}

func (c *Config) validateNames(p *problems) {
	checkName(p, "cluster", c.Cluster, "the name that all regions share")
	checkName(p, "region", c.Region, "this region's own name")
	seen := map[string]int{}
	for i, peer := range c.Peers {
		key := fmt.Sprintf("peers[%d].region", i)
		checkName(p, key, peer.Region, "the peer's name")
		switch first, twice := seen[peer.Region]; {
		case peer.Region == "":
		case peer.Region == c.Region:
			p.add(key, "list only the other regions", "%q is this region itself", peer.Region)
		case twice:
			p.add(key, fmt.Sprintf("remove it here or at peers[%d]", first), "region %q is listed twice", peer.Region)
		default:
			seen[peer.Region] = i
		}
		if _, err := peer.Key(); err != nil {
			p.add(fmt.Sprintf("peers[%d].public_key", i), "give the peer's ed25519 public key, 32 bytes in base64 or hex", "%v", err)
		}
	}
	if len(c.Peers) == 0 && c.Applies() {
		p.add("peers", "list the other regions, or set direction: publish", "no peer is listed, and direction is %s", c.Direction)
	}
	if strings.Contains(strings.Join(c.ForwardOrigins, "\n"), originPrefix) {
		for i, name := range c.ForwardOrigins {
			if strings.HasPrefix(name, originPrefix) {
				p.add(fmt.Sprintf("forward_origins[%d]", i), "remove it", "%q is an origin of pgwaltz itself: its rows would echo for ever", name)
			}
		}
	}
	for i, name := range c.ForwardOrigins {
		if name == "" {
			p.add(fmt.Sprintf("forward_origins[%d]", i), "give the name of a replication origin", "is empty")
		}
	}
}

// checkName holds cluster and region names to what may stand in subjects, stream names,
// message ids and file names.
func checkName(p *problems, key, name, what string) {
	const remedy = "use 1 to 32 of a-z, 0-9 and hyphens"
	switch {
	case name == "":
		p.add(key, remedy, "is missing: %s", what)
	case !regexp.MustCompile(`^[a-z0-9-]{1,32}$`).MatchString(name):
		p.add(key, remedy, "%q cannot stand in subjects and stream names", name)
	case name == "ctl" || name == "ack":
		p.add(key, "choose another name", "%q is a reserved word", name)
	}
}

// unusable says what keeps a connection string from being used, without showing it.
func (p *problems) unusable(key string, d DSN) {
	if d.unreadable() {
		p.add(key, "look at sslrootcert, sslcert, sslkey and servicefile in it: is the file there, and may the user of this process read it?", "names a file that cannot be read")
		return
	}
	p.add(key, "write postgres://user@host:5432/database or host=... user=... dbname=...; in a URL @ : / ? # and % of a password are written %40 %3A %2F %3F %23 and %25", "is no connection string that can be understood (not shown, it may hold a password)")
}

func (c *Config) validatePostgres(p *problems) {
	pg := &c.Postgres
	if pg.DSN.IsZero() && pg.DSNFile == "" {
		p.add("postgres.dsn", "set it here, in dsn_file, or in PGWALTZ_POSTGRES_DSN", "is missing: the local database")
	} else if !pg.DSN.IsZero() && !pg.DSN.valid() {
		p.unusable("postgres.dsn", pg.DSN)
	}
	if !pg.AdminDSN.IsZero() && !pg.AdminDSN.valid() {
		p.unusable("postgres.admin_dsn", pg.AdminDSN)
	}
	if !regexp.MustCompile(`^[a-z0-9_]{1,63}$`).MatchString(pg.Slot) {
		p.add("postgres.slot", "use 1 to 63 of a-z, 0-9 and underscores", "%q is no name for a slot", pg.Slot)
	}
	reached := 0
	for i, peer := range c.Peers {
		if !peer.DSN.IsZero() && !peer.DSN.valid() {
			p.unusable(fmt.Sprintf("peers[%d].dsn", i), peer.DSN)
		}
		if !peer.DSN.IsZero() {
			reached++
		}
	}
	if c.Mode != ModeStream && c.Applies() && reached == 0 && len(c.Peers) > 0 {
		p.add("peers", "give the dsn of each peer whose changes are to come here", "mode %s needs the peers' databases", c.Mode)
	}
	if pg.Publication == "" || len(pg.Publication) > 63 || strings.ContainsAny(pg.Publication, "\x00,") {
		p.add("postgres.publication", "use 1 to 63 bytes, without commas", "%q is no name for a publication", pg.Publication)
	}
	for _, peer := range c.Peers {
		if peer.Region != c.Region && pg.Slot == DefaultSlot(c.Cluster, peer.Region) {
			p.add("postgres.slot", "name it "+DefaultSlot(c.Cluster, c.Region)+", or leave the key out",
				"%q is the slot of peer %s: two regions may not share a slot name", pg.Slot, peer.Region)
		}
	}
	p.between("postgres.lock_timeout", pg.LockTimeout, 0, time.Hour)
}

func (c *Config) validateTables(p *problems) {
	if len(c.Tables.Include) == 0 {
		p.add("tables.include", `write ["*.*"] for all tables`, "is empty: nothing would be replicated")
	}
	for i, r := range c.Tables.Rules {
		if r.Match.text == "" {
			p.add(fmt.Sprintf("tables.rules[%d].match", i), "say which tables the rule is for, for example public.users", "is missing")
		}
	}
	for i, a := range c.Tables.Include {
		for j, b := range c.Tables.Exclude {
			if a.text != "" && a.text == b.text {
				p.add(fmt.Sprintf("tables.exclude[%d]", j), "remove one of the two", "%q is also tables.include[%d]", b, i)
			}
		}
	}
	if c.Stamps.Version != "" && c.Stamps.Version == c.Stamps.UpdatedAt {
		p.add("stamps.updated_at", "name two columns, or leave one of them empty", "%q is also stamps.version", c.Stamps.UpdatedAt)
	}
}

func (c *Config) validateRest(p *problems) {
	p.between("audit.retention", c.Audit.Retention, 0, 100*365*24*time.Hour)
	p.between("tombstones.min_age", c.Tombstones.MinAge, 0, 100*365*24*time.Hour)
	p.count("apply.batch_rows", c.Apply.BatchRows, 1, 100_000)
	p.between("apply.linger", c.Apply.Linger, 0, time.Second)
	p.count("copy.chunk_rows", c.Copy.ChunkRows, 1, 100_000)
	p.between("shutdown_timeout", c.ShutdownTimeout, time.Millisecond, time.Hour)
	p.between("max_clock_skew", c.MaxClockSkew, time.Millisecond, 365*24*time.Hour)
	if c.HTTP.Listen != "" {
		p.address("http.listen", c.HTTP.Listen)
	}
	if c.Signing.KeyFile != "" {
		p.file("signing.key_file", c.Signing.KeyFile)
	}
}

func (p *problems) between(key string, v, lo, hi time.Duration) {
	if v < lo || v > hi {
		p.add(key, fmt.Sprintf("use %s to %s", lo, hi), "%s is out of range", v)
	}
}

func (p *problems) count(key string, v, lo, hi int) {
	if v < lo || v > hi {
		p.add(key, fmt.Sprintf("use %d to %d", lo, hi), "%d is out of range", v)
	}
}

func (p *problems) size(key string, v, lo, hi Size) {
	if v < lo || v > hi {
		p.add(key, fmt.Sprintf("use %s to %s", lo, hi), "%s is out of range", v)
	}
}
