package postgres

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
)

// These variables turn the test binary into a claimer: the database, and how many clients claim how
// many at a time.
const (
	claimerURL     = "HSM_KP_TEST_CLAIMER"
	claimerClients = "HSM_KP_TEST_CLIENTS"
	claimerN       = "HSM_KP_TEST_N"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(claimerURL); url != "" {
		clients, _ := strconv.Atoi(os.Getenv(claimerClients))
		n, _ := strconv.Atoi(os.Getenv(claimerN))
		if err := claimAll(url, clients, n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// claimAll claims with several clients until nothing is left. It prints the refs of each claim once
// it returned, and at several times how much of its memory is resident, in KiB. Last it prints how
// long claims took, in hundredths of a millisecond, and how many took as long.
func claimAll(url string, clients, n int) error {
	s, err := Open(context.Background(), url, Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	failed := make(chan error, clients)
	var took [100_000]atomic.Uint32
	for i := range clients {
		go func() {
			for claims := 0; ; claims++ {
				start := time.Now()
				got, err := s.Claim(context.Background(), "alice", n, made)
				if err != nil || len(got) == 0 {
					failed <- err
					return
				}
				took[min(time.Since(start).Microseconds()/10, int64(len(took)-1))].Add(1)
				for j := range got {
					fmt.Printf("%x\n", got[j].Ref)
				}
				if i == 0 && claims%1000 == 0 {
					fmt.Println("resident", resident())
				}
			}
		}()
	}
	for range clients {
		if err := <-failed; err != nil {
			return err
		}
	}
	for d := range took {
		if n := took[d].Load(); n > 0 {
			fmt.Println("took", d, n)
		}
	}
	return nil
}

// resident returns how many KiB of this process's memory are resident, if that is known.
func resident() (kib int) {
	status, _ := os.ReadFile("/proc/self/status")
	if _, after, found := strings.Cut(string(status), "VmRSS:"); found {
		fmt.Sscan(after, &kib)
	}
	return kib
}

// Three processes claim all that there is, and one is killed in the middle: nothing is handed out
// twice, and every claim that returned is recorded, with its entry.
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
			c := claimer{clients: 8, n: 3, limit: stored + 1}
			if i == 0 {
				c.limit = 300 // then it is killed
			}
			c.run(t, url)
			mu.Lock()
			defer mu.Unlock()
			for _, ref := range c.refs {
				told[ref]++
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

// claimer is a process that claims. It is killed when it has printed that many claims.
type claimer struct {
	clients, n, limit int
	refs              []string
	took              []time.Duration
	resident          []int
}

func (c *claimer) run(t *testing.T, url string) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), claimerURL+"="+url, fmt.Sprint(claimerClients, "=", c.clients), fmt.Sprint(claimerN, "=", c.n))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return
	}
	guard := time.AfterFunc(time.Hour, func() { cmd.Process.Kill() })
	if c.limit < 10000 {
		guard.Reset(10 * time.Minute)
	}
	defer guard.Stop()
	killed := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		c.read(lines.Text())
		if len(c.refs) == c.limit && !killed {
			killed = true
			cmd.Process.Kill()
		}
	}
	if err := cmd.Wait(); err != nil && !killed {
		t.Errorf("a claimer err = %v, want nil", err)
	}
}

func (c *claimer) read(line string) {
	var n, many int
	switch {
	case len(line) == 64: // the line that it wrote when it was killed may be shorter
		c.refs = append(c.refs, line)
	case strings.HasPrefix(line, "took "):
		fmt.Sscan(line[5:], &n, &many)
		c.took = append(c.took, slices.Repeat([]time.Duration{time.Duration(n) * 10 * time.Microsecond}, many)...)
	case strings.HasPrefix(line, "resident "):
		fmt.Sscan(line[9:], &n)
		c.resident = append(c.resident, n)
	}
}

func unhex(t *testing.T, text string) []byte {
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
