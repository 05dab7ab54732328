package checkpoint

import "github.com/pgwaltz/pgwaltz/sink"

var _ sink.Policy
