// Package supervisor switches a region between its modes, and is `pgwaltz run` in the modes besides the stream: it
// holds the region's lead, so that one process of several is at work, looks every second at what the servers say of the
// subscriptions, and serves that as status and metrics. It moves no row, and it changes nothing while it runs: a subscription
// that somebody has disabled stays so.
package supervisor
