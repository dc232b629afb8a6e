// Package audit is the audit trail: what was done with which key, when, and by
// whom, in a form that cannot be changed unseen.
//
// A trail is a sequence of entries. Beside each stands a hash over it and the
// hash before (Chain), and over all of them grows a Merkle tree (Tree, RFC
// 9162). Now and then a key in the token signs a Checkpoint, the tree's size and
// root, which is kept elsewhere. Verify then finds any change to the entries that
// a checkpoint covers. The formats are those of C2SP, tlog-checkpoint and
// signed-note, so that other tools and witnesses can read and countersign them.
//
// It holds no storage, no clock and no token.
package audit
