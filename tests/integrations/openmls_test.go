package integrations

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// cargoTest runs tests of the adapter for OpenMLS. Its build folder is beside that of the OpenMLS
// peer of tests/interop, which uses the same crates.
func cargoTest(t *testing.T, s *service, args ...string) {
	t.Helper()
	built := filepath.Join(program.Root(), "tests", "interop", "peers", "openmls", "target")
	runIn(t, "openmls", append(s.environment(), "CARGO_TARGET_DIR="+built), append([]string{"cargo", "test", "--locked", "--quiet"}, args...))
}

func TestOpenMLS(t *testing.T) {
	t.Parallel()
	s := start(t, "1", "2", "3")
	cargoTest(t, s) // the tests that need no service
	cargoTest(t, s, "--test", "service", "whole_way", "--", "--ignored", "--nocapture")
	s.checkNoKeys(t)
	s.checkStoredNumbers(t)
	s.checkTrail(t, "FramedContentTBS", "LeafNodeTBS", "GroupInfoTBS")
}

// A refusal is reported and uses up no key package.
func TestOpenMLSRefusals(t *testing.T) {
	s := start(t, "2")
	s.makeKnown(t, s.on.Generate(nameOf("2"), "8"))
	last := s.on.Generate(nameOf("2"), "1", "--last-resort")
	s.makeKnown(t, last)
	t.Setenv("HSM_KP_TEST_LAST_RESORT", last[0])
	cargoTest(t, s, "--test", "service", "refusals", "--", "--ignored", "--nocapture")
	s.search(t, "an answer of the service", s.record.answers())
	for _, act := range []string{"released", "refused"} {
		if !s.did(t, act) {
			t.Errorf("the trail has no %q", act)
		}
	}
}

// did reports whether the trail has an act.
func (s *service) did(t *testing.T, act string) bool {
	t.Helper()
	for _, e := range s.trail(t) {
		if e.Act == act {
			return true
		}
	}
	return false
}

// checkStoredNumbers looks for private keys in the bytes of the adapter's files, each of which must
// have the leaf's handle instead of a private key.
func (s *service) checkStoredNumbers(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.out, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		handles := 0
		for _, b := range lists(text) {
			s.search(t, filepath.Base(path), b)
			if bytes.HasPrefix(b, []byte("hsm-kp:leaf:")) {
				handles++
			}
		}
		if handles != 1 {
			t.Errorf("%s has %d handles of the leaf's key, want 1", filepath.Base(path), handles)
		}
	}
}

// numbers matches bytes as OpenMLS stores them: a list of numbers in JSON.
var numbers = regexp.MustCompile(`\[[0-9]{1,3}(,[0-9]{1,3})+\]`)

// lists returns the bytes of the lists of numbers in a text.
func lists(text []byte) (all [][]byte) {
	for _, list := range numbers.FindAll(text, -1) {
		var b []byte
		for number := range bytes.SplitSeq(bytes.Trim(list, "[]"), []byte(",")) {
			n, err := strconv.ParseUint(string(number), 10, 8)
			if err != nil {
				break // numbers, but not bytes
			}
			b = append(b, byte(n))
		}
		all = append(all, b)
	}
	return all
}

// Without this test, the search could pass because it is faulty.
func TestNumbersAreRead(t *testing.T) {
	got := lists([]byte(`{"a":[1,2],"private_key":{"key":[251,0,17]},"b":[1,300,2],"c":[]}`))
	want := [][]byte{{1, 2}, {251, 0, 17}, {1}}
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("lists() = %v, want %v", got, want)
	}
}
