package wire

import (
	"errors"
	"fmt"
)

// Sentinels, for errors.Is. None of them is cured by reading the same bytes again; a
// subscriber refuses the frame, keeps it in quarantine, and asks for it anew.
var (
	// ErrNotFrame: the bytes do not start with the magic word; a foreign message.
	ErrNotFrame = errors.New("not a pgwaltz frame")
	// ErrVersion: the format version is unknown; see VersionError.
	ErrVersion = errors.New("unknown frame version")
	// ErrKind: the frame is intact, but of a kind this version does not know; see KindError.
	ErrKind = errors.New("unknown frame kind")
	// ErrCRC: checksum or chain do not fit the bytes; the message was altered on its way.
	ErrCRC = errors.New("frame checksum does not match")
	// ErrTruncated: the bytes end before the lengths in the header say.
	ErrTruncated = errors.New("frame is cut short")
	// ErrTooLarge: a size exceeds its limit. Nothing was allocated for it.
	ErrTooLarge = errors.New("frame or packet is too large")
	// ErrSignature: the signature is missing or not by the expected key.
	ErrSignature = errors.New("frame signature is missing or wrong")
	// ErrFragment: a fragment does not continue the packet that is being put together.
	ErrFragment = errors.New("fragment does not continue its packet")
	// ErrMalformed: the checksum fits, but the contents break the format's rules; a bug of
	// the writer, or a forged frame.
	ErrMalformed = errors.New("frame contents are malformed")
)

// VersionError is ErrVersion with the version found.
type VersionError struct{ Got uint8 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("unknown frame version %d: this build reads version %d", e.Got, Version)
}

// Is makes errors.Is(err, ErrVersion) true.
func (e *VersionError) Is(target error) bool { return target == ErrVersion }

// Hint tells an operator what to do.
func (e *VersionError) Hint() string {
	return "upgrade this region's sidecar to the release that the peer runs; nothing of the frame was applied"
}

// KindError is ErrKind with the kind found.
type KindError struct{ Got Kind }

func (e *KindError) Error() string { return fmt.Sprintf("unknown frame kind %d", uint8(e.Got)) }

// Is makes errors.Is(err, ErrKind) true.
func (e *KindError) Is(target error) bool { return target == ErrKind }

// Hint tells an operator what to do.
func (e *KindError) Hint() string {
	return "upgrade this region's sidecar to the release that the peer runs; nothing of the frame was applied"
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
