package config

import "time"

// validateFallback refuses what cannot be made safe without a person, each with its reason.
func (c *Config) validateFallback(p *problems) {
	f := c.Fallback
	p.between("fallback.after", f.After, time.Second, 30*24*time.Hour)
	p.between("fallback.back_after", f.BackAfter, time.Second, 30*24*time.Hour)
	if !f.On() {
		return
	}
	switch f.To {
	case ModeNative:
	case ModePglogical:
		p.add("fallback.to", "use native, or switch by hand: pgwaltz mode switch --prepare pglogical",
			"mode pglogical has to be prepared while the stream runs, and cannot take the stream over where both regions write: nobody can do that when the stream has failed already")
	default:
		p.add("fallback.to", "use native, or leave the key out", "%s is no mode to fall back to", f.To)
	}
	if c.Mode != ModeStream {
		p.add("fallback.to", "set mode: stream, or leave fallback out", "the region is configured for mode %s already", c.Mode)
	}
	if len(c.Peers) != 1 {
		p.add("fallback.to", "leave it out, and switch by hand", "there are %d peers, and a slot can be given to one subscription only: the others would get nothing", len(c.Peers))
		return
	}
	if c.Applies() && c.Peers[0].DSN.IsZero() {
		p.add("fallback.to", "give peers[0].dsn", "the peer's database is not known: the subscription reads from there")
	}
	if c.Publishes() && c.Publish.Confirm == ConfirmPublished {
		p.add("fallback.to", "set publish.confirm: adaptive or applied", "publish.confirm: published lets the slot forget what only the stream has: a subscription would miss that")
	}
}
