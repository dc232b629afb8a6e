// Package audit is the audit trail: what was done with which key, when and by whom, in a form in
// which changes are detected.
//
// A trail is a sequence of entries. Each is stored with a hash over it and the previous hash
// (Chain), and a Merkle tree (Tree, RFC 9162) grows over all of them. From time to time a key in
// the token signs a Checkpoint, the tree's size and root, which is kept elsewhere. Verify then
// detects any change to the entries that a checkpoint covers. The formats are those of C2SP,
// tlog-checkpoint and signed-note, so that other tools and witnesses can read and countersign them.
//
// The package holds no storage, no clock and no token.
package audit
