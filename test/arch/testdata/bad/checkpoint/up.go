package checkpoint

import "github.com/pgwaltz/pgwaltz/sink/apply"

var _ apply.Policy
