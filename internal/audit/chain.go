package audit

import (
	"crypto/sha256"
	"encoding/base64"

	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// Hash is a SHA-256 hash: a link of the chain, or the root of a tree.
type Hash [sha256.Size]byte

// String returns the hash in base64 (RFC 4648, Section 4), as a checkpoint
// writes it: 44 characters.
func (h Hash) String() string { return base64.StdEncoding.EncodeToString(h[:]) }

// chainLabel separates links from the nodes of a tree, and from anything else that is hashed.
const chainLabel = "hsm-kp audit chain"

// Chain returns the hash that is stored with an entry: it fixes the entry and all before it. It is
// SHA-256 of
//
//	opaque label<V> = "hsm-kp audit chain"
//	opaque previous[32]
//	all bytes of the entry
//
// where previous is the hash of the preceding entry, and zero for entry 0. It uses no key: anyone
// who can write to the trail can recompute the whole chain. It detects accidents and clumsy
// changes; checkpoints detect the others.
func Chain(previous Hash, entry []byte) Hash {
	in := make([]byte, 0, 1+len(chainLabel)+len(previous)+len(entry))
	in = wire.AppendVector(in, []byte(chainLabel))
	in = append(in, previous[:]...)
	return sha256.Sum256(append(in, entry...))
}
