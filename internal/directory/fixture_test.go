package directory

import (
	"context"
	"encoding/hex"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/directory/directorytest"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/keypackage/keypackagetest"
)

// itemsOf returns n key packages of alice.
func itemsOf(t testing.TB, n int) []Item {
	t.Helper()
	suite, _ := ciphersuite.Lookup(1)
	signer := keypackagetest.NewSigner(t, suite)
	var items []Item
	for range n {
		kp, _ := keypackagetest.Build(t, keypackagetest.Template(suite, "alice", keypackage.Lifetime{NotAfter: 1 << 40}), signer)
		ref, err := kp.Ref()
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, Item{Ref: ref, KeyPackage: kp})
	}
	return items
}

func serve(t *testing.T) *directorytest.Server {
	t.Helper()
	s := directorytest.New(directorytest.Ours)
	t.Cleanup(s.Close)
	return s
}

// quick returns options for a server that answers at once. Their limits are far beyond what that
// takes, even on a busy machine.
func quick(url string) Options {
	return Options{URL: url, Timeout: 20 * time.Second, Deadline: time.Minute, Concurrency: 4, MaxResponse: 1 << 20, UserAgent: "hsm-kp/test"}
}

// wantPosted asserts how often each item arrived.
func wantPosted(t *testing.T, s *directorytest.Server, items []Item, want int) {
	t.Helper()
	posted := s.Posted()
	for _, i := range items {
		if got := posted[hex.EncodeToString(i.Ref)]; got != want {
			t.Errorf("%v arrived %d times, want %d", i.Ref, got, want)
		}
	}
}

// publish publishes and wants all to succeed.
func publish(t *testing.T, p Publisher, items []Item) {
	t.Helper()
	for i, err := range p.Publish(context.Background(), items) {
		if err != nil {
			t.Errorf("Publish()[%d] err = %v, want nil", i, err)
		}
	}
}
