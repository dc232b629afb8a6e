package main

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/diagnosis"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/enroll"
	"github.com/hsm-kp/hsm-kp/internal/framing"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/manifest"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome"
)

func TestExitStatuses(t *testing.T) {
	for status, errs := range map[int][]error{
		exitDone: {nil},
		exitFailed: {
			errors.New("anything"), errSilent, operator.ErrPartial, errNoStore, operator.ErrNoIdentity, inventory.ErrNoWrappingKey, operator.ErrUnwrapRefused,
			errNotKeyPackage, inventory.ErrSuiteUnknown, diagnosis.ErrNoSuite,
			store.ErrNotFound, store.ErrExists, store.ErrBusy, store.ErrFull, store.ErrAway, store.ErrLogin, store.ErrNoDatabase, store.ErrReadOnly, store.ErrDamaged,
			&store.SchemaError{Have: 2, Known: 1},
			inventory.ErrAmbiguousRef, inventory.ErrRef, inventory.ErrInterrupted, inventory.ErrWrappingKeySpent, inventory.ErrTooMany, operator.ErrNoAuditKey, operator.ErrAuditKeyLost, audit.ErrOtherKey,
			inventory.ErrMixedUp, inventory.ErrNotOurs, inventory.ErrUnderWay, store.ErrReserved, store.ErrConsumed, store.ErrErased, errNotWelcome,
			welcome.ErrNotForIt, welcome.ErrSuite, welcome.ErrForged, welcome.ErrConfirmation, welcome.ErrSignature,
			&welcome.MissingPSKError{Missing: []welcome.PSKID{{}}}, vault.ErrStamp, store.ErrState, hpke.ErrOpen, syscall.ENOSPC,
			softhsm.ErrExists, softhsm.ErrUnfinished, identity.ErrName,
			ciphersuite.ErrSignature, hpke.ErrCleared, certificate.ErrMalformed, certificate.ErrKey, identity.ErrNoCertificate, &identity.ChainError{}, &identity.MissingError{}, keypackage.ErrVersion, keypackage.ErrSource, keypackage.ErrTruncated, keypackage.ErrTrailing, keypackage.ErrLength, keypackage.ErrCertificates, framing.ErrVersion, framing.ErrKind,
			wire.ErrTruncated, wire.ErrTrailing, wire.ErrLength, token.ErrDecrypt, token.ErrKeyMismatch, hpke.ErrKeyMismatch,
			audit.ErrTampered, audit.ErrEntry, audit.ErrCheckpoint, audit.ErrOrigin, audit.ErrKey, audit.ErrSignature, operator.ErrForeignCheckpoint, &operator.UnvouchedKeyError{},
			inventory.ErrNothingToShow, inventory.ErrOtherToken, inventory.ErrNoLeaf, store.ErrInUse, store.ErrWrappingKey, store.ErrRewrapped, vault.ErrMixedUp,
			operator.ErrRetired, operator.ErrNoChain, operator.ErrChainOfCurrent, operator.ErrLessCustody, operator.ErrNoneLeft, operator.ErrNoSuchWrappingKey, operator.ErrAmbiguousWrappingKey, errNotCiphertext, diagnosis.ErrKeyFault,
			directory.ErrRefused, directory.ErrUnauthorized, directory.ErrKnown, directory.ErrUnknownClient, directory.ErrAnswer, directory.ErrUnreachable,
			&directory.StatusError{Status: 500}, store.ErrHeld, operator.ErrUnpublished, operator.ErrNoDirectory,
			inventory.ErrAtDevice, store.ErrForDevice, store.ErrOtherRelease, operator.ErrNotHandedOver, operator.ErrDevices, operator.ErrOtherDevice, enroll.ErrFailed, record.ErrNotEmpty, operator.ErrNoCopy,
			&operator.InterruptedError{Cause: context.Canceled}, &operator.DueKeyError{}, &operator.UnusedKeyError{}, operator.ErrHeldBack, operator.ErrLeftPending,
			// The token says so, and it is the data that is at fault.
			fmt.Errorf("%w: %w", vault.ErrSealed, &token.Error{Func: "C_Decrypt", RV: token.CKR_GENERAL_ERROR}),
		},
		exitUsage: {usagef("what?"), &act.RequestError{}, &operator.MechanismError{}, operator.ErrSeveral, &config.Error{Path: "x.yaml", Cause: fs.ErrNotExist}, &manifest.Error{}, manifest.ErrEmpty},
		exitToken: {
			&token.Error{Func: "C_Sign", RV: token.CKR_DEVICE_ERROR},
			token.ErrModule, token.ErrNoToken, token.ErrAmbiguousToken, token.ErrUninitialized, token.ErrPIN, token.ErrPINAtRisk, token.ErrPINSource,
			token.ErrNotFound, token.ErrAmbiguousKey, token.ErrKeyExists, token.ErrUnsupported, softhsm.ErrNotInstalled,
			token.ErrClosed, token.ErrStuck, token.ErrKeyChanged, vault.ErrWeakKey, vault.ErrCustody, keypackage.ErrSignerFault, identity.ErrKeyMismatch, &signer.WeakKeyError{},
			softhsm.ErrInUse, signer.ErrScheme, fmt.Errorf("%w: %w", token.ErrPINSource, &token.FileModeError{}),
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

// An error that a library gains is put into TestExitStatuses, by somebody who
// thinks about its exit status and its hint.
func TestEveryExportedErrorHasAnExitStatus(t *testing.T) {
	decided := make(map[string]bool)
	here, err := parser.ParseFile(gotoken.NewFileSet(), "hints_test.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range here.Decls {
		if f, ok := d.(*ast.FuncDecl); !ok || f.Name.Name != "TestExitStatuses" {
			continue
		}
		ast.Inspect(d, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok {
					decided[x.Name+"."+s.Sel.Name] = true
				}
			}
			return true
		})
	}
	seen := 0
	for _, name := range exportedErrors(t) {
		if seen++; !decided[name] {
			t.Errorf("TestExitStatuses does not have %s", name)
		}
	}
	if seen < 40 {
		t.Errorf("found %d exported errors, want those of all packages", seen)
	}
}

// exportedErrors returns the sentinels and the types of errors that the packages
// of this module export, as a caller writes them. What token re-exports has its own names for it.
func exportedErrors(t *testing.T) []string {
	t.Helper()
	var names []string
	add := func(pkg string, id *ast.Ident) {
		if id.IsExported() && (strings.HasPrefix(id.Name, "Err") || strings.HasSuffix(id.Name, "Error")) {
			names = append(names, pkg+"."+id.Name)
		}
	}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch base := entry.Name(); {
		case err != nil:
			return err
		case entry.IsDir() && (base == "cmd" || base == "tests" || base == "api" || base == "client" || base == "cryptoki" || base == "integrations" || base == "bin" || base == "testdata" || strings.HasPrefix(base, ".") && base != ".." || path == filepath.Join("../..", "token", "internal")):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(base, ".go") || strings.HasSuffix(base, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(gotoken.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok == gotoken.CONST {
				continue
			}
			for _, spec := range g.Specs {
				switch s := spec.(type) {
				case *ast.ValueSpec:
					for _, id := range s.Names {
						add(f.Name.Name, id)
					}
				case *ast.TypeSpec:
					add(f.Name.Name, s.Name)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// An error that a person can do something about has a hint.
func TestHints(t *testing.T) {
	for _, err := range []error{
		operator.ErrPartial, &operator.InterruptedError{Cause: context.Canceled}, &operator.DueKeyError{}, &operator.UnusedKeyError{}, &act.RequestError{}, &operator.MechanismError{},
		errNoStore, operator.ErrNoIdentity, inventory.ErrNoWrappingKey, operator.ErrUnwrapRefused,
		store.ErrExists, store.ErrBusy, store.ErrFull, store.ErrAway, store.ErrLogin, store.ErrNoDatabase, store.ErrReadOnly, &store.SchemaError{Have: 2, Known: 1},
		inventory.ErrAmbiguousRef, inventory.ErrRef, identity.ErrKeyMismatch, syscall.ENOSPC,
		softhsm.ErrExists, softhsm.ErrUnfinished, softhsm.ErrNotInstalled, vault.ErrSealed, vault.ErrWeakKey, vault.ErrStamp, inventory.ErrMixedUp, store.ErrState,
		errURLPassword, usagef("what?"), &config.Error{}, &config.Error{Cause: &fs.PathError{Op: "open", Err: fs.ErrNotExist}},
		token.ErrModule, token.ErrNoToken, token.ErrAmbiguousToken, token.ErrUninitialized, token.ErrPIN, token.ErrPINAtRisk, token.ErrPINSource,
		directory.ErrRefused, directory.ErrUnauthorized, directory.ErrKnown, directory.ErrAnswer, directory.ErrUnreachable, operator.ErrUnpublished, operator.ErrNoDirectory,
		token.ErrNotFound, token.ErrAmbiguousKey, &signer.WeakKeyError{}, store.ErrForDevice, store.ErrOtherRelease, operator.ErrNotHandedOver,
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
