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

// chainLabel keeps links apart from the nodes of a tree, and from whatever else
// is hashed.
const chainLabel = "hsm-kp audit chain"

// Chain returns the hash that stands beside an entry: it fixes the entry and all
// before it. It is SHA-256 of
//
//	opaque label<V> = "hsm-kp audit chain"
//	opaque previous[32]
//	all bytes of the entry
//
// where previous stands beside the entry before, and is zero for entry 0. There
// is no key in it: who can write to the trail can make the whole chain anew. It
// finds accidents, and clumsy hands; checkpoints find the others.
func Chain(previous Hash, entry []byte) Hash {
	in := make([]byte, 0, 1+len(chainLabel)+len(previous)+len(entry))
	in = wire.AppendVector(in, []byte(chainLabel))
	in = append(in, previous[:]...)
	return sha256.Sum256(append(in, entry...))
}
