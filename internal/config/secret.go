package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

const masked = "xxxxx"

// Secret is a password or token. Every way of printing it gives a mask.
type Secret struct{ value string }

// NewSecret wraps a value.
func NewSecret(s string) Secret { return Secret{s} }

// Reveal returns the value itself. It is for the call that needs it, never for printing.
func (s Secret) Reveal() string { return s.value }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.value == "" }

// String returns the mask, or "" for no secret.
func (s Secret) String() string {
	if s.value == "" {
		return ""
	}
	return masked
}

// Format prints the mask whatever the verb, %#v and %x included.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// LogValue keeps the value out of slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText keeps the value out of JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML keeps the value out of YAML.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// DSN is a PostgreSQL connection string, a URL or keywords and values. Printing it masks its
// password; a string that cannot be understood is masked as a whole.
type DSN struct{ value string }

// NewDSN wraps a connection string without checking it.
func NewDSN(s string) DSN { return DSN{s} }

// Reveal returns the connection string with its password.
func (d DSN) Reveal() string { return d.value }

// IsZero reports whether there is no connection string.
func (d DSN) IsZero() bool { return d.value == "" }

// String returns who connects to which database where, without any secret.
func (d DSN) String() string {
	if d.value == "" {
		return ""
	}
	c, err := pgconn.ParseConfig(d.value)
	if err != nil || !d.valid() {
		return masked
	}
	u := url.URL{Scheme: "postgres", Path: "/" + c.Database, User: url.User(c.User)}
	if c.Password != "" {
		u.User = url.UserPassword(c.User, masked)
	}
	u.Host = fmt.Sprintf("%s:%d", c.Host, c.Port)
	if strings.HasPrefix(c.Host, "/") {
		u.Host, u.RawQuery = "", fmt.Sprintf("host=%s&port=%d", c.Host, c.Port)
	}
	return u.String()
}

// Mask takes the connection string, and its passwords as they are and as they are written, out of a text that somebody else
// has made, such as an error of a server. Secrets of less than three letters stay: they would be found everywhere.
func (d DSN) Mask(text string) string {
	secrets := []string{d.value}
	if c, err := pgconn.ParseConfig(d.value); err == nil {
		secrets = append(secrets, c.Password, url.QueryEscape(c.Password), url.PathEscape(c.Password), strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(c.Password))
	}
	if u, err := url.Parse(d.value); err == nil && u.User != nil {
		_, rest, _ := strings.Cut(d.value, "://")
		who, _, _ := strings.Cut(rest, "@")
		_, written, _ := strings.Cut(who, ":")
		secrets = append(secrets, written)
	}
	for _, s := range secrets {
		if len(s) > 2 {
			text = strings.ReplaceAll(text, s, masked)
		}
	}
	return text
}

// Format prints the masked form whatever the verb.
func (d DSN) Format(f fmt.State, _ rune) { fmt.Fprint(f, d.String()) }

// LogValue keeps the password out of slog.
func (d DSN) LogValue() slog.Value { return slog.StringValue(d.String()) }

// MarshalText keeps the password out of JSON.
func (d DSN) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// MarshalYAML keeps the password out of YAML.
func (d DSN) MarshalYAML() (any, error) { return d.String(), nil }

// valid reports whether the string can be used. What the parser says is not repeated,
// because it may quote the string. A host that has an @ begins with the rest of a password.
func (d DSN) valid() bool {
	c, err := pgconn.ParseConfig(d.value)
	return err == nil && !strings.Contains(c.Host, "@") && !slices.ContainsFunc(c.Fallbacks, func(f *pgconn.FallbackConfig) bool { return strings.Contains(f.Host, "@") })
}

// unreadable reports that the string names a file, of certificates say, that cannot be read.
func (d DSN) unreadable() bool {
	_, err := pgconn.ParseConfig(d.value)
	var path *fs.PathError
	return errors.As(err, &path)
}

// isURL reports whether the string is in URL form.
func (d DSN) isURL() bool {
	return strings.HasPrefix(d.value, "postgres://") || strings.HasPrefix(d.value, "postgresql://")
}

// withPassword returns the connection string with the password set.
func (d DSN) withPassword(p Secret) DSN {
	if d.isURL() {
		u, err := url.Parse(d.value)
		if err != nil {
			return d
		}
		// The other parameters stay as they are written, and a blank is %20: libpq takes a plus for a plus.
		parts := slices.DeleteFunc(strings.Split(u.RawQuery, "&"), func(s string) bool { return s == "" || strings.HasPrefix(s, "password=") })
		u.RawQuery = strings.Join(append(parts, "password="+strings.ReplaceAll(url.QueryEscape(p.value), "+", "%20")), "&")
		if u.User != nil {
			u.User = url.User(u.User.Username())
		}
		return DSN{u.String()}
	}
	quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(p.value)
	return DSN{d.value + " password='" + quoted + "'"}
}

// Fresh is the connection string with what its files hold now: a password may be changed while
// the sidecar runs. What cannot be read stays as it was.
func (p *Postgres) Fresh() DSN {
	dsn := p.DSN
	if p.DSNFile != "" && p.dsnOfFile {
		if line, err := firstLine(p.DSNFile); err == nil && line != "" && (DSN{line}).valid() {
			dsn = DSN{line}
			if !p.Password.IsZero() {
				dsn = dsn.withPassword(p.Password)
			}
		}
	}
	if p.PasswordFile != "" {
		if line, err := firstLine(p.PasswordFile); err == nil && line != "" {
			dsn = dsn.withPassword(Secret{line})
		}
	}
	return dsn
}

// hasPassword reports whether a password stands in the string itself.
func (d DSN) hasPassword() bool {
	if d.isURL() {
		u, err := url.Parse(d.value)
		if err != nil {
			return false
		}
		_, ok := u.User.Password()
		return ok || u.Query().Has("password")
	}
	return strings.Contains(" "+d.value, " password")
}

// User is the role that connects; "" where the string is not valid.
func (d DSN) User() string {
	c, err := pgconn.ParseConfig(d.value)
	if err != nil {
		return ""
	}
	return c.User
}
