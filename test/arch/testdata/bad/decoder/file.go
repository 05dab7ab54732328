package decoder

import "os"

func Read() ([]byte, error) { return os.ReadFile("x") }
