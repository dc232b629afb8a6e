package postgres

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/audit"
	"github.com/hsm-kp/hsm-kp/store"
	"github.com/hsm-kp/hsm-kp/store/postgres/postgrestest"
)

// claimerURL is the variable that makes a claimer of the test binary.
const claimerURL = "HSM_KP_TEST_CLAIMER"

func TestMain(m *testing.M) {
	if url := os.Getenv(claimerURL); url != "" {
		if err := claimAll(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// claimAll claims with eight clients until nothing is left, and prints the refs of each claim
// once it was told of it.
func claimAll(url string) error {
	s, err := Open(context.Background(), url, Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	failed := make(chan error, 8)
	for range 8 {
		go func() {
			for {
				got, err := s.Claim(context.Background(), "alice", 3, made)
				if err != nil || len(got) == 0 {
					failed <- err
					return
				}
				for i := range got {
					fmt.Printf("%x\n", got[i].Ref)
				}
			}
		}()
	}
	for range 8 {
		if err := <-failed; err != nil {
			return err
		}
	}
	return nil
}

// Three processes claim all that there is, and one is killed in the middle: nothing is handed
// out twice, and what anybody was told of is claimed, with its entry.
func TestOfThreeProcessesThatClaimOneIsKilled(t *testing.T) {
	const stored = 6000
	url := postgrestest.Shared(t).Database(t)
	s := openAt(t, url)
	furnish(t, s)
	if err := s.AddKeyPackages(t.Context(), batchFrom(rand.New(rand.NewPCG(5, 5)), stored)); err != nil {
		t.Fatal(err)
	}
	told := make(map[string]int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			limit := stored + 1
			if i == 0 {
				limit = 300 // then it is killed
			}
			for _, ref := range claimer(t, url, limit) {
				mu.Lock()
				told[ref]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for ref, n := range told {
		if n > 1 {
			t.Errorf("key package %s was handed out %d times", ref, n)
		}
	}
	counts, err := s.Count(t.Context(), "alice")
	if err != nil || counts[store.Claimed] != stored || len(told) < stored/2 {
		t.Errorf("Count() = %v, %v, want all of %d claimed; %d were told of", counts, err, stored, len(told))
	}
	if _, err := audit.Verify(s.Entries(t.Context(), 0), nil); err != nil {
		t.Errorf("Verify() err = %v, want nil", err)
	}
	for k, err := range s.KeyPackages(t.Context(), store.Filter{State: store.Claimed}) {
		if err != nil {
			t.Fatal(err)
		}
		delete(told, fmt.Sprintf("%x", k.Ref))
	}
	if len(told) > 0 {
		t.Errorf("%d were told of and are not claimed", len(told))
	}
}

// claimer runs a process that claims, and kills it when it has told of so many, and returns
// what it told of.
func claimer(t *testing.T, url string, limit int) (refs []string) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), claimerURL+"="+url)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return nil
	}
	guard := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer guard.Stop()
	killed := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if line := lines.Text(); len(line) == 64 { // what it was writing when it was killed may be less
			refs = append(refs, line)
		}
		if len(refs) == limit && !killed {
			killed = true
			cmd.Process.Kill()
		}
	}
	if err := cmd.Wait(); err != nil && !killed {
		t.Errorf("a claimer err = %v, want nil", err)
	}
	return refs
}
