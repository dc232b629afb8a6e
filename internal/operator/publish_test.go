package operator

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/directory/directorytest"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// keyPackageFile is the name of the file that a folder has of a key package.
func keyPackageFile(ref []byte) string { return keypackage.Ref(ref).String() + ".mls" }

// spool gives the config a directory that is a folder, and returns its path.
func (f *fixture) spool(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	f.settings.Directories = append(f.settings.Directories, config.Directory{
		Name: name, Type: config.Spool, Path: dir, Batch: 2, Lease: config.Duration(time.Minute), Concurrency: 1,
	})
	return dir
}

// web gives the config a directory that is a server.
func (f *fixture) web(t *testing.T, name string) *directorytest.Server {
	t.Helper()
	server := directorytest.New(directorytest.Ours)
	t.Cleanup(server.Close)
	f.settings.Directories = append(f.settings.Directories, config.Directory{
		Name: name, Type: config.HTTP, URL: server.URL + "/key-packages", Batch: 10, Lease: config.Duration(time.Minute), Concurrency: 2,
		Timeout: config.Duration(5 * time.Second), Deadline: config.Duration(200 * time.Millisecond), MaxResponse: 1 << 20,
	})
	return server
}

func (f *fixture) wantFiles(t *testing.T, dir string, want int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.mls"))
	if err != nil || len(files) != want {
		t.Errorf("%d files, %v, want %d", len(files), err, want)
	}
}

func TestWhatIsAvailableIsPublished(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		dir := f.spool(t, "main")
		f.identity(t, "alice")
		f.identity(t, "bob")
		f.generate(t, GenerateRequest{Identity: "alice", Count: 3})
		f.generate(t, GenerateRequest{Identity: "alice", Count: 1, LastResort: true})
		f.generate(t, GenerateRequest{Identity: "bob", Count: 2})
		var sent []Published
		result, err := f.Publish(t.Context(), PublishRequest{
			Choice: Choice{Identities: []string{"alice"}}, Count: 2, Each: func(p Published) error { sent = append(sent, p); return nil },
		})
		if err != nil || result.Published != 3 || len(sent) != 3 { // one of last resort beside the two
			t.Fatalf("Publish() = %+v, %v, handed on %d, want 3", result, err, len(sent))
		}
		f.wantFiles(t, dir, 3)
		if result, err := f.Publish(t.Context(), PublishRequest{}); err != nil || result.Published != 3 {
			t.Errorf("Publish() of all = %+v, %v, want 3", result, err)
		}
		f.wantFiles(t, dir, 6)
		if result, err := f.Publish(t.Context(), PublishRequest{}); err != nil || result.Published != 0 {
			t.Errorf("Publish() once more = %+v, %v, want nothing", result, err)
		}
	})
}

func TestWhichDirectoryIsPublishedIn(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.identity(t, "alice")
		if _, err := f.Publish(t.Context(), PublishRequest{}); !errors.Is(err, ErrNoDirectory) {
			t.Errorf("Publish() without a directory err = %v, want %v", err, ErrNoDirectory)
		}
		f.spool(t, "main")
		f.spool(t, "other")
		if _, err := f.Publish(t.Context(), PublishRequest{}); !errors.Is(err, ErrSeveral) {
			t.Errorf("Publish() in one of two err = %v, want %v", err, ErrSeveral)
		}
		if _, err := f.Publish(t.Context(), PublishRequest{Directory: "third"}); !errors.Is(err, ErrNoDirectory) {
			t.Errorf("Publish() in one that there is not err = %v, want %v", err, ErrNoDirectory)
		}
		if _, err := f.Publish(t.Context(), PublishRequest{Directory: "other"}); err != nil {
			t.Errorf("Publish() in a named one err = %v, want nil", err)
		}
	})
}

// The next run sends what a directory did not accept.
func TestWhatADirectoryRefusesGoesFirstTheNextTime(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		server := f.web(t, "main")
		f.identity(t, "alice")
		f.generate(t, GenerateRequest{Identity: "alice", Count: 3})
		server.Refuse(f.refs(t, "alice")[1])
		result, err := f.Publish(t.Context(), PublishRequest{})
		if !errors.Is(err, ErrUnpublished) || result.Published != 2 || result.Failed != 1 {
			t.Errorf("Publish() = %+v, %v, want 2, 1 failed and %v", result, err, ErrUnpublished)
		}
		counts, err := f.Count(t.Context(), "alice")
		if err != nil || counts[store.Pending] != 1 || counts[store.Published] != 2 {
			t.Errorf("Count() = %v, %v, want 1 pending, 2 published", counts, err)
		}
		if result, err := f.Publish(t.Context(), PublishRequest{Count: 1}); !errors.Is(err, ErrUnpublished) || result.Failed != 1 {
			t.Errorf("Publish() of what was refused = %+v, %v, want it sent again", result, err)
		}
		if requests := len(server.Requests()); requests != 4 {
			t.Errorf("the directory had %d requests, want 3 of the first run and 1 of the second", requests)
		}
	})
}

func TestAPoolIsFilledUpOnce(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		dir := f.spool(t, "main")
		f.settings.Replenish.Low, f.settings.Replenish.High, f.settings.Replenish.LastResort = 3, 5, true
		f.identity(t, "alice")
		f.generate(t, GenerateRequest{Identity: "alice", Count: 2})
		var done []Replenished
		each := func(r Replenished) error { done = append(done, r); return nil }
		if err := f.Replenish(t.Context(), ReplenishRequest{DryRun: true, Each: each}); err != nil {
			t.Fatal(err)
		}
		f.wantFiles(t, dir, 0)
		for range 2 {
			if err := f.Replenish(t.Context(), ReplenishRequest{Each: each}); err != nil {
				t.Fatal(err)
			}
		}
		want := []Replenished{
			{Identity: "alice", Directory: "main", Available: 2, Low: 3, High: 5, Generated: 3, Published: 5, LastResort: true},
			{Identity: "alice", Directory: "main", Available: 2, Low: 3, High: 5, Generated: 3, Published: 5, LastResort: true},
			{Identity: "alice", Directory: "main", Level: 5, Low: 3, High: 5},
		}
		for i, w := range want {
			if done[i] != w {
				t.Errorf("run %d: %+v, want %+v", i, done[i], w)
			}
		}
		f.wantFiles(t, dir, 6) // one of last resort
	})
}

func TestAReplenishmentElsewhereIsLeftAlone(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		dir := f.spool(t, "main")
		f.settings.Replenish.Low, f.settings.Replenish.High, f.settings.Replenish.LastResort = 1, 1, false
		f.identity(t, "alice")
		_, giveBack, err := f.lease(t.Context(), `replenish "alice" in "main"`)
		if err != nil {
			t.Fatal(err)
		}
		elsewhere := false
		if err := f.Replenish(t.Context(), ReplenishRequest{Each: func(r Replenished) error { elsewhere = r.Elsewhere; return nil }}); err != nil || !elsewhere {
			t.Errorf("Replenish() elsewhere = %v, %v, want true", elsewhere, err)
		}
		f.wantFiles(t, dir, 0)
		giveBack()
		if err := f.Replenish(t.Context(), ReplenishRequest{}); err != nil {
			t.Error(err)
		}
		f.wantFiles(t, dir, 1)
	})
}

// An identity that cannot be replenished does not stop the others.
func TestOneThatCannotBeReplenishedDoesNotHoldUpTheOthers(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		dir := f.spool(t, "main")
		f.settings.Replenish.Low, f.settings.Replenish.High, f.settings.Replenish.LastResort = 1, 1, false
		f.settings.Identities = map[string]config.Identity{"alice": {Replenish: config.OwnReplenish{Directory: "gone"}}}
		f.identity(t, "alice")
		f.identity(t, "bob")
		if err := f.Replenish(t.Context(), ReplenishRequest{}); !errors.Is(err, ErrNoDirectory) {
			t.Errorf("Replenish() err = %v, want %v", err, ErrNoDirectory)
		}
		f.wantFiles(t, dir, 1)
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	})
}
