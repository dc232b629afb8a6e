package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrCheckpoint reports text that is not a checkpoint.
var ErrCheckpoint = errors.New("not a checkpoint")

// ErrOrigin reports a string that cannot name a trail.
var ErrOrigin = errors.New("not an origin")

// Checkpoint states the number of entries of a trail and the root of the tree over them (C2SP
// tlog-checkpoint).
type Checkpoint struct {
	Origin string // names the trail, such as "hsm-kp.example.com/mls-prod"; see CheckOrigin
	Size   uint64 // number of entries
	Root   Hash   // of the Tree over them
}

// CheckOrigin fails unless origin can name a trail and the key that signs its checkpoints. C2SP
// signed-note requires a name that is not empty and has neither Unicode spaces nor a plus; a note
// has no control characters. It should be a URL without a scheme that belongs to the operator; no
// server need answer there. The error wraps ErrOrigin.
func CheckOrigin(origin string) error {
	switch {
	case origin == "":
		return fmt.Errorf("%w: it is empty", ErrOrigin)
	case !utf8.ValidString(origin):
		return fmt.Errorf("%w: it is not UTF-8", ErrOrigin)
	case strings.ContainsFunc(origin, unicode.IsSpace):
		return fmt.Errorf("%w: it has a space", ErrOrigin)
	case strings.ContainsFunc(origin, unicode.IsControl):
		return fmt.Errorf("%w: it has a control character", ErrOrigin)
	case strings.Contains(origin, "+"):
		return fmt.Errorf("%w: it has a plus", ErrOrigin)
	}
	return nil
}

// Text returns the text of the note (C2SP tlog-checkpoint, "Note text"): three
// lines, each with a newline at its end,
//
//	origin
//	size          decimal, without leading zeros
//	root hash     base64 of 32 bytes
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
}

// ParseCheckpoint decodes the text of a checkpoint. It accepts exactly what Text writes; extension
// lines, which tlog-checkpoint advises against, are refused, because no entries could ever confirm
// them. The error wraps ErrCheckpoint. Trust the text only if it comes from Open.
func ParseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return Checkpoint{}, fmt.Errorf("%w: it does not have three lines", ErrCheckpoint)
	}
	if err := CheckOrigin(lines[0]); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	size, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: its size is not a number", ErrCheckpoint)
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != len(Hash{}) {
		return Checkpoint{}, fmt.Errorf("%w: its root is not a hash", ErrCheckpoint)
	}
	c := Checkpoint{Origin: lines[0], Size: size, Root: Hash(root)}
	if c.Text() != text { // leading zeros, and other ways to write base64
		return Checkpoint{}, fmt.Errorf("%w: it is not in the form that Text writes", ErrCheckpoint)
	}
	return c, nil
}
