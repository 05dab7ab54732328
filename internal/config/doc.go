// Package config reads what one sidecar is told to do.
//
// Values come from three places, later ones winning: the defaults, the YAML file and the
// environment (PGWALTZ_ and the key's path in upper case, PGWALTZ_POSTGRES_DSN for
// postgres.dsn). Load either returns a configuration that has been checked, or an *Error
// that holds every problem at once, each with its key, its line where it came from the
// file, and a remedy.
//
// Secrets never leave this package as text by accident: Secret and DSN print masked forms
// through fmt, slog, JSON and YAML, and only Reveal gives the value.
package config
