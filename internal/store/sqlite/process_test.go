package sqlite

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Two processes that write to one file without a pause both make progress, and neither runs into
// the busy timeout.
func TestTwoProcessesWriteAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	furnish(t, s)
	const batches = 40
	var wg sync.WaitGroup
	for i := range uint64(2) {
		wg.Go(func() {
			if told := batchesOfWriter(t, path, i<<32, batches); told < batches {
				t.Errorf("writer %d ended after %d batches, want %d", i, told, batches)
			}
		})
	}
	wg.Wait()
	counts, err := s.Count(t.Context(), "alice")
	if n := counts[store.Available]; err != nil || n < 2*batches*killedBatch || n%killedBatch != 0 {
		t.Errorf("Count() = %v, %v, want whole batches and at least %d key packages", counts, err, 2*batches*killedBatch)
	}
}

// batchesOfWriter runs a writer until it has printed n batches, and returns how many it printed.
func batchesOfWriter(t *testing.T, path string, start uint64, n int) int {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "HSM_KP_TEST_WRITER="+path, fmt.Sprintf("HSM_KP_TEST_START=%d", start))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return 0
	}
	guard := time.AfterFunc(10*time.Minute, func() { cmd.Process.Kill() })
	defer guard.Stop()
	told := 0
	for lines := bufio.NewScanner(out); told < n && lines.Scan(); told++ {
		var batch uint64
		if _, err := fmt.Sscan(lines.Text(), &batch); err != nil {
			t.Errorf("the writer says %q", lines.Text())
			break
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	return told
}
