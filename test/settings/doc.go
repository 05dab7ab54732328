// Package settings proves of every key of the configuration that it does what docs/configuration.md
// says, given in the file and given as a variable: not that it is read, but what then is different
// in a database, a stream, a log or an answer. A key that has no such proof fails the test.
package settings
