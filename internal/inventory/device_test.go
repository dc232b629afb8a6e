package inventory_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

func TestKeysOfADeviceAreSignedForAndStayThere(t *testing.T) {
	f := newFixture(t)
	inv := f.inventory()
	for _, id := range []ciphersuite.ID{1, 2, 5, 7} {
		s := suite(t, id)
		t.Run(s.Name, func(t *testing.T) {
			initKey, leafKey := deviceKey(t, s), deviceKey(t, s)
			record, err := inv.SignFor(t.Context(), request(f.identity(t, s.Name, s.ID), 7), initKey.PublicKey(), leafKey.PublicKey())
			if err != nil {
				t.Fatalf("SignFor() err = %v, want nil", err)
			}
			stored, err := f.store.KeyPackage(t.Context(), record.Ref)
			if err != nil || stored.Custody != vault.CustodyDevice || len(stored.Sealed) != 0 || stored.State != store.Available {
				t.Fatalf("KeyPackage() = %+v, %v", stored, err)
			}
			kp, err := inventory.Public(&stored)
			if err != nil || !bytes.Equal(kp.InitKey, initKey.PublicKey()) || !bytes.Equal(kp.LeafNode.EncryptionKey, leafKey.PublicKey()) {
				t.Fatalf("Public() has other keys, err = %v", err)
			}

			w := welcometest.NewGroup(t, s).Welcome(kp)
			if _, err := inv.OpenWelcome(t.Context(), inventory.WelcomeRequest{Welcome: w, Now: now, Until: now.Add(time.Hour)}); !errors.Is(err, inventory.ErrAtDevice) {
				t.Errorf("OpenWelcome() err = %v, want %v", err, inventory.ErrAtDevice)
			}
			if _, err := inv.PrivateKeys(t.Context(), keypackage.Ref(record.Ref), now); !errors.Is(err, inventory.ErrAtDevice) {
				t.Errorf("PrivateKeys() err = %v, want %v", err, inventory.ErrAtDevice)
			}
			if _, err := welcome.Open(w, kp, initKey, welcome.Options{}); err != nil {
				t.Errorf("the device opens the Welcome: err = %v, want nil", err)
			}
			if now, err := f.store.KeyPackage(t.Context(), record.Ref); err != nil || now.State != store.Available {
				t.Errorf("the key package is %s, %v after it was refused", now.State, err)
			}

			for name, keys := range map[string][2][]byte{
				"the same twice": {initKey.PublicKey(), initKey.PublicKey()},
				"none":           {nil, nil},
				"no point":       {make([]byte, s.Npk), leafKey.PublicKey()},
				"a short one":    {initKey.PublicKey(), leafKey.PublicKey()[1:]},
			} {
				if _, err := inv.SignFor(t.Context(), request(f.identity(t, s.Name+name, s.ID), 1), keys[0], keys[1]); err == nil {
					t.Errorf("SignFor(%s) err = nil", name)
				}
			}
		})
	}
}

func deviceKey(t *testing.T, s *ciphersuite.Suite) *hpke.SecretKey {
	t.Helper()
	k, err := hpke.GenerateKeyPair(s, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
