package audit

import (
	"crypto/sha256"

	"golang.org/x/mod/sumdb/tlog"
)

// Tree is the Merkle tree over entries (RFC 9162, Section 2.1, which is that of RFC 6962). Its
// leaves are SHA-256(0x00 || entry), its nodes SHA-256(0x01 || left || right). It stores only the
// roots of its full subtrees, at most 64 hashes. The zero Tree is empty and ready for use. It is
// not safe for concurrent use; a copy shares memory with the original and must not be appended to.
type Tree struct {
	size uint64
	// full has the roots of the full subtrees, from the left, each smaller than the one before: one
	// for each bit set in size.
	full []tlog.Hash
}

// Append appends an entry, encoded by Entry.Bytes. It does not retain it.
func (t *Tree) Append(entry []byte) {
	root := tlog.RecordHash(entry)
	for bits := t.size; bits&1 == 1; bits >>= 1 { // two subtrees of equal size become one
		last := len(t.full) - 1
		root = tlog.NodeHash(t.full[last], root)
		t.full = t.full[:last]
	}
	t.full = append(t.full, root)
	t.size++
}

// Size returns the number of entries.
func (t *Tree) Size() uint64 { return t.size }

// Root returns the root hash. The root of the empty tree is SHA-256 of nothing.
func (t *Tree) Root() Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	last := len(t.full) - 1
	root := t.full[last]
	for i := last - 1; i >= 0; i-- {
		root = tlog.NodeHash(t.full[i], root)
	}
	return Hash(root)
}
