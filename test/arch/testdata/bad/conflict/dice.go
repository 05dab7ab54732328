package conflict

import "math/rand/v2"

func Toss() bool { return rand.IntN(2) == 0 }
