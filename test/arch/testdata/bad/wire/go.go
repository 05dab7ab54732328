package wire

func Background(f func()) { go f() }
