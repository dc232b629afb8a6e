package load

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// resident is the memory of a process, and its peak, in KiB (proc(5)).
type resident struct{ now, peak int }

func residentOf(t testing.TB, pid int) (r resident) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Error(err)
		return r
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.Atoi(fields[1]) // other fields are not numbers
		switch fields[0] {
		case "VmRSS:":
			r.now = n
		case "VmHWM:":
			r.peak = n
		}
	}
	return r
}

// slope returns the slope of the line that fits y at 0, 1, 2 and so on best.
func slope(y []float64) float64 {
	n := float64(len(y))
	var sx, sy, sxx, sxy float64
	for i, v := range y {
		x := float64(i)
		sx, sy, sxx, sxy = sx+x, sy+v, sxx+x*x, sxy+x*v
	}
	if d := n*sxx - sx*sx; d != 0 {
		return (n*sxy - sx*sy) / d
	}
	return 0
}
