//go:build linux

// Package memory compares the memory that hsm-kp uses with the number of key packages that it
// makes. It runs on Linux, where the kernel reports a child's peak resident set in KiB; other
// systems have other units, or none.
package memory

import (
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

const mib = 1024 // KiB

// more is how much more memory a larger count may need: the page cache of the store's writer fills
// up to its limit of 48 MiB, which 40,000 key packages do not reach yet. Keeping the key packages
// themselves would need as much again.
const more = 64 * mib

// peak runs a command and returns its peak resident set in KiB. It keeps none of the output: a
// process begins with its parent's pages, so the size of a large test would be measured instead.
func peak(t *testing.T, cmd *exec.Cmd) int64 {
	t.Helper()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
}

func TestMemoryDoesNotGrowWithTheCount(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes 42,000 key packages")
	}
	i := program.Install(t)
	i.Run("identity", "create", "alice", "--suite", "2") // the fastest in SoftHSM
	measured := make(map[int]int64)
	for _, count := range []int{2_000, 40_000} {
		measured[count] = peak(t, i.Command("generate", "--identity", "alice", "--count", strconv.Itoa(count)))
		t.Logf("%d key packages: %d MiB at most", count, measured[count]/mib)
	}
	small, large := measured[2_000], measured[40_000]
	if large > 150*mib {
		t.Errorf("40,000 key packages took %d MiB, want at most 150", large/mib)
	}
	if large > small+more {
		t.Errorf("40,000 key packages took %d MiB and 2,000 took %d, want at most %d more", large/mib, small/mib, more/mib)
	}

	// Reading loads one page at a time.
	list := peak(t, i.Command("list", "--json"))
	t.Logf("list of 42,000: %d MiB at most", list/mib)
	if list > small+16*mib {
		t.Errorf("list of 42,000 key packages took %d MiB and generating 2,000 took %d, want at most 16 more", list/mib, small/mib)
	}
}
