package cli

import (
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hsm-kp/hsm-kp/internal/directory/directorytest"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// directoryKey is the key under which a script stores its directory.
type directoryKey struct{}

// directory runs a directory on this machine that decodes key packages with mls-go:
//
//	directory start               its address is in DIRECTORY_URL
//	directory stop
//	directory fail STATUS [N]     the next N requests, 1 by default
//	directory reset               after the work of the next request is done
//	directory slow SECONDS        the next request
//	directory take CLIENT N       as a client does that adds CLIENT
//	directory text TEXT           answers the next request with it
//	directory forget              all clients
//	directory save DIR            each key package that it received, in DIR/REF.mls
//	directory has N               asserts how many key packages it received, each once
func directory(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(directoryKey{}).(**directorytest.Server)
	number := func(i, otherwise int) int {
		if len(args) <= i {
			return otherwise
		}
		n, err := strconv.Atoi(args[i])
		ts.Check(err)
		return n
	}
	switch args[0] {
	case "start":
		*s = directorytest.New(program.Theirs)
		ts.Defer((*s).Close)
		ts.Setenv("DIRECTORY_URL", (*s).URL)
	case "stop":
		(*s).Close()
	case "fail":
		for range number(2, 1) {
			(*s).Fail(directorytest.Status(number(1, 0)))
		}
	case "reset":
		(*s).Fail(directorytest.Reset(true))
	case "slow":
		(*s).Fail(directorytest.Slow(time.Duration(number(1, 1)) * time.Second))
	case "take":
		at := (*s).URL + "/clients/key_package/" + base64.URLEncoding.EncodeToString([]byte(args[1]))
		for range number(2, 1) {
			answer, err := http.Get(at)
			ts.Check(err)
			answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				ts.Fatalf("GET %s: %s", at, answer.Status)
			}
		}
	case "text":
		(*s).Fail(directorytest.Body(args[1]))
	case "forget":
		(*s).Forget()
	case "save":
		ts.Check(os.MkdirAll(ts.MkAbs(args[1]), 0o755))
		for ref, kp := range (*s).Content() {
			ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[1]), ref+".mls"), append([]byte{0, 1, 0, 5}, kp...), 0o644))
		}
	case "has":
		posted := (*s).Posted()
		if len(posted) != number(1, 0) {
			ts.Fatalf("the directory has %d key packages, want %s", len(posted), args[1])
		}
		for ref, n := range posted {
			if n != 1 {
				ts.Fatalf("%s was sent %d times, want once", ref, n)
			}
		}
	default:
		ts.Fatalf("directory %s: no such command", args[0])
	}
}
