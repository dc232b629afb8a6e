package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/manifest"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome"
)

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitToken  = 3
)

// exitStatus sorts an error into the statuses that the manual promises.
func exitStatus(err error) int {
	var usage *usageError
	var request *act.RequestError
	var configError *config.Error
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage), errors.As(err, &request), errors.As(err, &configError), as[*manifest.Error](err), errors.Is(err, manifest.ErrEmpty):
		return exitUsage
	case operator.TokenFault(err), isAny(err, softhsm.ErrNotInstalled, softhsm.ErrInUse):
		return exitToken
	}
	return exitFailed
}

// hint says what to do about err, in one sentence, or nothing where there is
// nothing that would surely help.
func hint(err error) string {
	if own := (*advised)(nil); errors.As(err, &own) {
		return own.hint
	}
	if due := (*operator.DueKeyError)(nil); errors.As(err, &due) {
		return fmt.Sprintf("`hsm-kp wrap-key rotate --purpose %s` makes another", due.Key.Purpose)
	}
	if other := (*operator.MechanismError)(nil); errors.As(err, &other) {
		return fmt.Sprintf("`hsm-kp wrap-key rotate --mechanism %s` makes another", other.Want)
	}
	if unused := (*operator.UnusedKeyError)(nil); errors.As(err, &unused) {
		return fmt.Sprintf("`hsm-kp wrap-key destroy %.16x` destroys it", unused.Key.ID)
	}
	for _, h := range hints {
		if h.fits(err) {
			return h.say
		}
	}
	return ""
}

// advised is an error with a hint that only its command can give.
type advised struct {
	error
	hint string
}

func (e *advised) Unwrap() error { return e.error }

// advise gives err a hint where it is target.
func advise(err, target error, hint string) error {
	if errors.Is(err, target) {
		return &advised{err, hint}
	}
	return err
}

// hints are tried in order: the narrow ones come first.
var hints = []struct {
	fits func(error) bool
	say  string
}{
	{is(token.CKR_PIN_LOCKED), "the security officer must reset the PIN; further tries will not help"},
	{is(token.CKR_PIN_EXPIRED), "change the PIN with the token's own tool first"},
	{is(token.ErrPINAtRisk), "make sure that the PIN is the right one, then log in once with --force-login"},
	{is(token.ErrPIN), "it was tried once and will not be tried again by itself: correct what token.pin in the config names, then log in once with --force-login"},
	{is(token.ErrPINSource), "see token.pin in the config"},
	{is(token.ErrStuck), "look at the device and its network, then run the command again; token.timeout in the config says how long a call may take"},
	{is(token.ErrKeyChanged), "somebody replaced the key in the token under the same CKA_ID; nothing was done with the new one"},
	{is(token.CKR_DEVICE_ERROR, token.CKR_DEVICE_REMOVED, token.CKR_TOKEN_NOT_PRESENT), "look at the device, its network and its client, then run the command again: what was done is kept; token.recovery in the config says how long it is tried"},
	{is(token.CKR_SESSION_COUNT), "other processes have the sessions of the token; give fewer in token.sessions"},
	{is(token.ErrModule), "token.module in the config must be the absolute path of the PKCS#11 library of your HSM"},
	{is(token.ErrAmbiguousToken), "choose one of them by token.serial or token.slot in the config"},
	{is(token.ErrNoToken), "see token.label, token.serial and token.slot in the config, and the variables that the module needs under token.environment"},
	{is(token.ErrUninitialized), "initialise it with its own tool; only `hsm-kp init --softhsm DIR` makes tokens"},
	{is(vault.ErrSealed), "the record was changed or damaged since it was stored; a backup of the store may have it whole"},
	{is(vault.ErrStamp, inventory.ErrMixedUp), "somebody wrote to the store, or replaced a key in the token; nothing was signed or shown: compare with a backup"},
	{is(vault.ErrWeakKey), "wrapping keys are made by `hsm-kp init`, in the token; one from elsewhere is not taken"},
	{is(token.CKR_MECHANISM_INVALID), "`hsm-kp doctor` shows what the module can"},
	{is(operator.ErrAuditKeyLost), "if it is lost for good, `hsm-kp audit key --new` begins a new one"},
	{is(token.ErrNotFound), "the key may be in another token, or was deleted there"},
	{is(token.ErrAmbiguousKey), "choose one by its CKA_ID with --key-id"},
	{as[*signer.WeakKeyError], "let the token generate the key, or allow this one by name with `hsm-kp identity create --allow-weak-key`"},
	{is(softhsm.ErrNotInstalled), "install it (Debian, Ubuntu: apt-get install softhsm2), or name its library in SOFTHSM2_MODULE"},
	{is(softhsm.ErrUnfinished), "another run may be making it just now; where none is, an earlier one was cut short: remove the folder, or choose another"},
	{is(softhsm.ErrExists), "use the config in it with --config, or choose another folder"},
	{is(inventory.ErrTooMany), "make them in several runs, with `hsm-kp wrap-key rotate` between"},
	{is(operator.ErrNoAuditKey), "`hsm-kp audit checkpoint` makes it"},
	{is(errNoStore), "`hsm-kp init` makes it"},
	{is(operator.ErrNoIdentity), "`hsm-kp identity list` shows all; `hsm-kp identity create` makes one"},
	{is(identity.ErrNoCertificate), "`hsm-kp identity csr` makes the request for one, `hsm-kp identity import-cert` takes the chain"},
	{is(certificate.ErrMalformed), "the file must have certificates in PEM and nothing else; `openssl x509 -inform DER -in FILE` makes it of DER"},
	{as[*identity.ChainError], "the file must have the identity's certificate first, then its issuer's, and so on; x509.roots in the config names the roots"},
	{as[*identity.MissingError], "see key_packages.required_capabilities and capabilities in the config"},
	{is(certificate.ErrKey), "make the identity with suite 1, 2, 3, 5 or 7"},
	{is(inventory.ErrSuiteUnknown), "an experimental cipher suite is described under experimental in the config, and enabled there"},
	{is(inventory.ErrNoWrappingKey), "`hsm-kp init` makes those that the config's custody needs, `hsm-kp wrap-key create --purpose wrap` one for custody token"},
	{is(operator.ErrUnwrapRefused), "set it to true in the config if an MLS library outside is to hold the private keys"},
	{is(identity.ErrKeyMismatch), "somebody replaced the key in the token under the same CKA_ID; nothing was signed"},
	{is(inventory.ErrAmbiguousRef, operator.ErrAmbiguousWrappingKey), "give more of its digits"},
	{is(inventory.ErrRef), "`hsm-kp list` shows them"},
	{is(directory.ErrUnauthorized), "see bearer, certificate and ca of the directory in the config; what was not taken is sent again by the next run"},
	{is(directory.ErrKnown), "somebody else registered the client, or the store was set back: have the directory's operator remove the client, then run the command again"},
	{is(directory.ErrAnswer), "see url and type of the directory in the config"},
	{is(directory.ErrRefused), "they stay pending for that directory, and are sent again by the next run; `hsm-kp export --again` takes one elsewhere"},
	{is(operator.ErrSeveral), "name one with --directory"},
	{is(operator.ErrLeftPending), "`hsm-kp export --pending` writes what is missing"},
	{is(operator.ErrHeldBack), "`hsm-kp list --unconfirmed` shows them"},
	{is(operator.ErrNoDirectory), "describe it under directories in the config: `hsm-kp config sample` shows how"},
	{as[*operator.InterruptedError], "run the command again for the rest, or `hsm-kp sweep`"},
	{is(operator.ErrPartial, operator.ErrUnpublished, directory.ErrUnreachable), "run the command again for the rest"},
	{is(errURLPassword), "keep it in a file that PGPASSFILE names, with mode 0600, or in PGPASSWORD; a certificate or a peer's login needs none"},
	{is(store.ErrLogin), "PGPASSFILE or PGPASSWORD have a password, sslcert and sslkey in store.url a certificate; the server's pg_hba.conf says what it asks for"},
	{is(store.ErrNoDatabase), "make it (`createdb`, with encoding UTF8), or mend store.url; then `hsm-kp init` makes its tables"},
	{is(store.ErrAway), "is PostgreSQL up, and does store.url name its host and database? what was told of as done is safe; run the command again"},
	{is(store.ErrBusy), "another process holds the store; wait for it to end and run the command again"},
	{is(store.ErrFull), "make room on the disk and run the command again: what was stored before is safe"},
	{is(syscall.ENOSPC), "make room on the disk; what is stored can be written with `hsm-kp export`"},
	{is(store.ErrReadOnly), "the store's file and its folder must be writable for this user, or the database's role have the privileges"},
	{as[*store.SchemaError], "install the newer hsm-kp, or use another store"},
	{is(record.ErrNotEmpty), "name a store that has no records: another database, or a file that is not there yet"},
	{is(store.ErrExists), "choose another name"},
	{is(inventory.ErrNotOurs), "the key package that it is for was made elsewhere, or another store has it"},
	{is(store.ErrReserved), "`hsm-kp welcome confirm` or `hsm-kp welcome release` ends the reservation, and time does"},
	{is(store.ErrErased), "it expired, was retired or its wrapping key was destroyed: `hsm-kp audit show REF` tells"},
	{is(store.ErrForDevice), "the device opens its Welcomes; `hsm-kp provision` hands its private keys over until `hsm-kp handover confirm`"},
	{is(store.ErrOtherRelease), "another device has the name, or the same one a new key: `hsm-kp identity rotate NAME` ends what the old key has, and lets provision begin anew"},
	{is(operator.ErrNotHandedOver), "nothing was confirmed; `hsm-kp provision --json` hands over, `hsm-kp list --unconfirmed` shows what waits"},
	{is(inventory.ErrNoLeaf), "it was handed over when the Welcome was opened, or erased by `hsm-kp welcome confirm --leaf`"},
	{is(inventory.ErrNothingToShow), "`hsm-kp welcome open` and `hsm-kp decrypt` use them where they are"},
	{is(vault.ErrCustody), "`hsm-kp doctor` shows what the token can; key_packages.custody: wrapped serves every suite"},
	{is(inventory.ErrOtherToken), "name that token in the config"},
	{is(operator.ErrRetired), "`hsm-kp identity rotate` begins it anew"},
	{is(operator.ErrLessCustody), "--custody token keeps it, --custody wrapped says that this is meant; key_packages.custody in the config is the default"},
	{is(operator.ErrNoChain), "`hsm-kp identity csr --next` makes the request for one; give the chain with --chain FILE"},
	{is(operator.ErrChainOfCurrent), "`hsm-kp identity csr --next` makes the request for it; `hsm-kp identity import-cert` takes a chain for the key that it has"},
	{is(operator.ErrNoneLeft), "`hsm-kp generate` makes more"},
	{is(audit.ErrTampered), "somebody wrote to the store: compare with a backup, and with checkpoints that were kept elsewhere"},
	{as[*operator.UnvouchedKeyError], "if the key before was lost, ask those who made the new one, and give its verifier key too, with --key"},
	{is(operator.ErrForeignCheckpoint), "give the verifier key that was noted when the audit key was made, with --key"},
	{is(operator.ErrNoSuchWrappingKey), "`hsm-kp wrap-key list` shows them"},
	{is(store.ErrWrappingKey), "`hsm-kp wrap-key list` shows when; what was under it cannot be had back"},
	{is(store.ErrConsumed), "a key package is used once: ask to be added again, with another"},
	{as[*welcome.MissingPSKError], "give it with --psk ID=FILE"},
	{is(welcome.ErrForged, welcome.ErrConfirmation, welcome.ErrSignature), "nothing was used up; ask for the Welcome again, and compare pre-shared keys where there are any"},
	{is(store.ErrState), "`hsm-kp list` shows the states"},
	{configIsHere, "there is one in this folder: `--config hsm-kp.yaml`, or HSM_KP_CONFIG=hsm-kp.yaml"},
	{configMissing, "name it with --config or HSM_KP_CONFIG; `hsm-kp init --softhsm DIR` makes one to try with"},
	{as[*config.Error], "`hsm-kp config sample` shows every field"},
	{is(manifest.ErrEmpty), "a line a device; `hsm-kp provision --help` has the fields"},
	{as[*manifest.Error], "nothing was made; `hsm-kp provision --help` has the fields, and --check tries a manifest"},
	{is(operator.ErrDevices), "mend their lines or what they say, and run the command again: what is ready stays as it is"},
	{isUsage, "`hsm-kp --help` or `hsm-kp COMMAND --help` shows how"},
	{is(token.CKR_GENERAL_ERROR), "the module says no more than that; SoftHSM says so when another process logs in at the same moment: run the command again"},
	{is(context.DeadlineExceeded), "the token did not answer in time"},
}

// isUsage fits what a command line or the config asks for and cannot be done.
func isUsage(err error) bool { return as[*usageError](err) || as[*act.RequestError](err) }

func is(targets ...error) func(error) bool {
	return func(err error) bool { return isAny(err, targets...) }
}

// configIsHere reports a missing config while one of the usual name is in the working folder.
func configIsHere(err error) bool {
	_, here := os.Stat("hsm-kp.yaml")
	return configMissing(err) && here == nil
}

func isAny(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

func as[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}

// configMissing fits a config file that is not there.
func configMissing(err error) bool { return as[*config.Error](err) && errors.Is(err, fs.ErrNotExist) }
