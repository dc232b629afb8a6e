package audit_test

import (
	"crypto/sha256"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hsm-kp/hsm-kp/internal/audit"
)

// The chain is frozen: stores hold its hashes forever.
func TestChainIsFrozen(t *testing.T) {
	entry := unhex(t, frozenEntry)
	first := audit.Chain(audit.Hash{}, entry)
	wantEqual(t, "Chain() of entry 0", first, "TRBEIKY/LCEf0Jtpg5Q/ah88rM1OcQst7Q5eJK65WBI=")
	wantEqual(t, "Chain() of entry 1", audit.Chain(first, entry), "coX3SLnBv9oqbZ/53fa3jN7Ca+KO/ZSCUc9EQwEQUWM=")
}

func TestChainIsWhatItsDocumentationSays(t *testing.T) {
	previous := audit.Hash{0: 1, 31: 2}
	in := append([]byte{18}, "hsm-kp audit chain"...)
	in = append(in, previous[:]...)
	in = append(in, "entry"...)
	wantEqual(t, "Chain()", audit.Chain(previous, []byte("entry")), audit.Hash(sha256.Sum256(in)))
}

// The roots are frozen: auditors hold them forever.
func TestRootsAreFrozen(t *testing.T) {
	all := newTrail(13, nil)
	for n, want := range map[int]string{
		0:  "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
		1:  "ORLYA6gqNV1qg2FLrqTWqpr1jHIjujVREFteMiw7Hdo=",
		13: root13,
	} {
		wantEqual(t, "root", all.checkpoint(n).Root, want)
	}
}

// storedHashes is storage for tlog, which computes a root in another way.
type storedHashes []tlog.Hash

func (s storedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, s[i])
	}
	return out, nil
}

func TestTreeHasTheRootsOfTlog(t *testing.T) {
	var tree audit.Tree
	var hashes storedHashes
	for n := range int64(300) {
		want, err := tlog.TreeHash(n, hashes)
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "Size()", tree.Size(), n)
		wantEqual(t, "Root()", tree.Root(), audit.Hash(want))
		e := entryAt(uint64(n))
		more, err := tlog.StoredHashes(n, e.Bytes(), hashes)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, more...)
		tree.Append(e.Bytes())
	}
}

func TestTreeKeepsNoneOfItsInput(t *testing.T) {
	var tree audit.Tree
	entry := []byte("entry")
	tree.Append(entry)
	want := tree.Root()
	clear(entry)
	wantEqual(t, "Root()", tree.Root(), want)
}
