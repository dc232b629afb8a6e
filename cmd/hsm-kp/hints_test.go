package main

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/identity"
	"github.com/hsm-kp/hsm-kp/inventory"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/store"
	"github.com/hsm-kp/hsm-kp/store/sqlite"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

func TestExitStatuses(t *testing.T) {
	for status, errs := range map[int][]error{
		exitDone: {nil},
		exitFailed: {
			errors.New("anything"), errSilent, errPartial, errNoStore, errNoIdentity, inventory.ErrNoWrappingKey, errUnwrapRefused,
			errNotKeyPackage, errNoSuite,
			store.ErrNotFound, store.ErrExists, store.ErrBusy, store.ErrFull, store.ErrReadOnly, store.ErrDamaged,
			&sqlite.SchemaError{Have: 2, Known: 1},
			inventory.ErrAmbiguousRef, inventory.ErrRef, inventory.ErrInterrupted, inventory.ErrWrappingKeySpent,
			inventory.ErrMixedUp, vault.ErrStamp, store.ErrState, hpke.ErrOpen, syscall.ENOSPC,
			softhsm.ErrExists, softhsm.ErrUnfinished,
			// The token says so, and it is the data that is at fault.
			fmt.Errorf("%w: %w", vault.ErrSealed, &token.Error{Func: "C_Decrypt", RV: token.CKR_GENERAL_ERROR}),
		},
		exitUsage: {usagef("what?"), &config.Error{Path: "x.yaml", Cause: fs.ErrNotExist}},
		exitToken: {
			&token.Error{Func: "C_Sign", RV: token.CKR_DEVICE_ERROR},
			token.ErrModule, token.ErrNoToken, token.ErrAmbiguousToken, token.ErrUninitialized, token.ErrPIN, token.ErrPINSource,
			token.ErrNotFound, token.ErrAmbiguousKey, token.ErrKeyExists, token.ErrUnsupported, softhsm.ErrNotInstalled,
			token.ErrClosed, vault.ErrWeakKey, keypackage.ErrSignerFault, identity.ErrKeyMismatch, &signer.WeakKeyError{},
		},
	} {
		for _, err := range errs {
			if err != nil {
				err = fmt.Errorf("do a thing: %w", err)
			}
			if got := exitStatus(err); got != status {
				t.Errorf("exitStatus(%v) = %d, want %d", err, got, status)
			}
		}
	}
}

// Where a person can do something, they are told what.
func TestHints(t *testing.T) {
	for _, err := range []error{
		errPartial, errNoStore, errNoIdentity, inventory.ErrNoWrappingKey, errUnwrapRefused,
		store.ErrExists, store.ErrBusy, store.ErrFull, store.ErrReadOnly, &sqlite.SchemaError{Have: 2, Known: 1},
		inventory.ErrAmbiguousRef, inventory.ErrRef, identity.ErrKeyMismatch, syscall.ENOSPC,
		softhsm.ErrExists, softhsm.ErrUnfinished, softhsm.ErrNotInstalled, vault.ErrSealed, vault.ErrWeakKey, vault.ErrStamp, inventory.ErrMixedUp, store.ErrState,
		usagef("what?"), &config.Error{}, &config.Error{Cause: &fs.PathError{Op: "open", Err: fs.ErrNotExist}},
		token.ErrModule, token.ErrNoToken, token.ErrAmbiguousToken, token.ErrUninitialized, token.ErrPIN, token.ErrPINSource,
		token.ErrNotFound, token.ErrAmbiguousKey, &signer.WeakKeyError{},
		&token.Error{Func: "C_Login", RV: token.CKR_PIN_LOCKED},
	} {
		if hint(fmt.Errorf("do a thing: %w", err)) == "" {
			t.Errorf("hint(%v) is empty", err)
		}
	}
	if got := hint(errors.New("anything")); got != "" {
		t.Errorf("hint of what nobody knows = %q, want none", got)
	}
	locked := fmt.Errorf("%w: %w", token.ErrPIN, &token.Error{Func: "C_Login", RV: token.CKR_PIN_LOCKED})
	if hint(locked) == hint(token.ErrPIN) {
		t.Error("a locked PIN has the hint of a wrong one")
	}
}
