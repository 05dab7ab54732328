package tombstone

// LimitOwn sets how many items of own changes are held as they are.
func (x *Index) LimitOwn(n int) { x.own.limit, x.own.most = n, n }
