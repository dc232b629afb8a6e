package operator

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func TestABatchIsSentWithinItsLease(t *testing.T) {
	lease := config.Duration(time.Minute)
	for _, c := range []struct{ rate, batch, want int }{{0, 50, 50}, {100, 50, 50}, {1, 50, 15}, {1, 5, 5}} {
		if got := batchSize(config.Directory{Rate: c.rate, Batch: c.batch, Lease: lease}); got != c.want {
			t.Errorf("batchSize(%d a second, %d) = %d, want %d", c.rate, c.batch, got, c.want)
		}
	}
	if got := batchSize(config.Directory{Rate: 1, Batch: 50, Lease: config.Duration(2 * time.Second)}); got != 1 {
		t.Errorf("batchSize() with a short lease = %d, want 1", got)
	}
}

func TestWhichErrorsSayThatADirectoryTakesNothing(t *testing.T) {
	web, service := config.Directory{Type: config.HTTP}, config.Directory{Type: config.OpenMLS}
	for _, c := range []struct {
		dir  config.Directory
		err  error
		want bool
	}{
		{web, directory.ErrUnreachable, true}, {service, directory.ErrUnreachable, true},
		{web, &directory.StatusError{Status: 401}, true}, {service, &directory.StatusError{Status: 401}, false}, // of one client alone
		{web, &directory.StatusError{Status: 400}, false}, {service, directory.ErrKnown, false},
	} {
		if got := takesNothing(c.dir, fmt.Errorf("publish: %w", c.err)); got != c.want {
			t.Errorf("takesNothing(%s, %v) = %v, want %v", c.dir.Type, c.err, got, c.want)
		}
	}
}

func TestADeliveryServiceNamesAClientByTheContentOfItsCredential(t *testing.T) {
	basic := keypackage.BasicCredential([]byte("alice"))
	id, err := clientID(&store.Identity{Name: "alice", Credential: basic.Bytes()})
	if err != nil || string(id) != "alice" {
		t.Errorf("clientID() = %q, %v, want alice", id, err)
	}
	if _, err := clientID(&store.Identity{Name: "alice", Credential: []byte{0, 1, 9}}); err == nil {
		t.Error("clientID() of a damaged credential err = nil")
	}
}

func TestALeaseIsOneHoldersUntilItIsGivenBack(t *testing.T) {
	onBothStores(t, testLease)
}

func testLease(t *testing.T, f *fixture) {
	held, giveBack, err := f.lease(t.Context(), "replenish alice")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.lease(t.Context(), "replenish alice"); !errors.Is(err, store.ErrHeld) {
		t.Errorf("lease() of another err = %v, want %v", err, store.ErrHeld)
	}
	giveBack()
	if !errors.Is(held.Err(), context.Canceled) {
		t.Errorf("the context of a lease that was given back: %v, want that it ended", held.Err())
	}
	_, giveBack, err = f.lease(t.Context(), "replenish alice")
	if err != nil {
		t.Fatalf("lease() of what was given back err = %v, want nil", err)
	}
	giveBack()
}
