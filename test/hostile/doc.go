// Package hostile stands in for a region with a client of somebody else, against whole sidecars and
// their databases: what adapter/broker proves of the way between regions, and what becomes of the
// victim's tables, slot and stream.
package hostile
