package inventory_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

func TestTokensOfDirectoriesAreSealedAndMoveWithTheWrappingKey(t *testing.T) {
	f := newFixture(t)
	f.identity(t, "alice", 2)
	inv, ctx, secret := f.inventory(), t.Context(), []byte("0123456789abcdef0123456789abcdef")
	a := store.Account{Identity: "alice", Directory: "main", Client: []byte("id"), CreatedAt: now}
	if _, err := inv.AccountToken(ctx, "main", []byte("id")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("AccountToken() err = %v, want %v", err, store.ErrNotFound)
	}
	if err := inv.KeepAccount(ctx, a, secret); err != nil {
		t.Fatalf("KeepAccount() err = %v, want nil", err)
	}
	if got, err := inv.AccountToken(ctx, "main", []byte("id")); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("AccountToken() = %x, %v, want what was kept", got, err)
	}
	stored, err := f.store.Account(ctx, "main", []byte("id"))
	if err != nil || bytes.Contains(stored.Sealed, secret) {
		t.Fatalf("Account() = %+v, %v, want the token sealed", stored, err)
	}
	// It does not open for another client.
	moved := stored
	moved.Client = []byte("other")
	if err := f.store.SetAccount(ctx, moved); err != nil {
		t.Fatal(err)
	}
	if _, err := inv.AccountToken(ctx, "main", []byte("other")); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("AccountToken() of a record that was moved err = %v, want %v", err, vault.ErrSealed)
	}
	old, err := f.store.CurrentWrappingKey(ctx, store.Seal)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inv.ReplaceWrappingKey(ctx, &old, now); err != nil {
		t.Fatal(err)
	}
	if _, err := inv.DestroyWrappingKey(ctx, old.ID, false, now, nil); err != nil {
		t.Fatalf("DestroyWrappingKey() err = %v, want nil", err)
	}
	if got, err := f.again(t).AccountToken(ctx, "main", []byte("id")); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("AccountToken() once its wrapping key is destroyed = %x, %v, want it under the next", got, err)
	}
	if _, err := f.again(t).AccountToken(ctx, "main", []byte("other")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("AccountToken() of one that was left behind err = %v, want %v", err, store.ErrNotFound)
	}
}
