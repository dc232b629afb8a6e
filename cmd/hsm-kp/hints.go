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

// hint returns one sentence that says what to do about err, or "" if nothing is
// certain to help.
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

// advise adds a hint to err if it is target.
func advise(err, target error, hint string) error {
	if errors.Is(err, target) {
		return &advised{err, hint}
	}
	return err
}

// hints are tried in order: the specific ones come first.
var hints = []struct {
	fits func(error) bool
	say  string
}{
	{is(token.CKR_PIN_LOCKED), "the security officer must reset the PIN; further tries will not help"},
	{is(token.CKR_PIN_EXPIRED), "change the PIN with the token's own tool first"},
	{is(token.ErrPINAtRisk), "make sure that the PIN is the right one, then log in once with --force-login"},
	{is(token.ErrPIN), "the PIN was tried once and is not tried again automatically: correct what token.pin in the config names, then log in once with --force-login"},
	{is(token.ErrPINSource), "see token.pin in the config"},
	{is(token.ErrStuck), "check the device and its network, then run the command again; token.timeout in the config limits the time of a call"},
	{is(token.ErrKeyChanged), "the key in the token was replaced under the same CKA_ID; nothing was done with the new one"},
	{is(token.CKR_DEVICE_ERROR, token.CKR_DEVICE_REMOVED, token.CKR_TOKEN_NOT_PRESENT), "check the device, its network and its client, then run the command again: what was done is kept; token.recovery in the config limits the time of recovery"},
	{is(token.CKR_SESSION_COUNT), "other processes use the sessions of the token; lower token.sessions in the config"},
	{is(token.ErrModule), "token.module in the config must be the absolute path of the PKCS#11 library of your HSM"},
	{is(token.ErrAmbiguousToken), "select one with token.serial or token.slot in the config"},
	{is(token.ErrNoToken), "see token.label, token.serial and token.slot in the config, and the variables that the module needs under token.environment"},
	{is(token.ErrUninitialized), "initialize it with its own tool; only `hsm-kp init --softhsm DIR` makes tokens"},
	{is(vault.ErrSealed), "the record was changed or damaged after it was stored; a backup of the store may have it intact"},
	{is(vault.ErrStamp, inventory.ErrMixedUp), "the store was changed from outside, or a key in the token was replaced; nothing was signed or shown: compare with a backup"},
	{is(vault.ErrWeakKey), "`hsm-kp init` makes wrapping keys in the token; keys from elsewhere are not accepted"},
	{is(token.CKR_MECHANISM_INVALID), "`hsm-kp doctor` shows what the module supports"},
	{is(operator.ErrAuditKeyLost), "if it is lost permanently, `hsm-kp audit key --new` makes a new one"},
	{is(token.ErrNotFound), "the key may be in another token, or was deleted there"},
	{is(token.ErrAmbiguousKey), "select one by its CKA_ID with --key-id"},
	{as[*signer.WeakKeyError], "let the token generate the key, or allow this one by name with `hsm-kp identity create --allow-weak-key`"},
	{is(softhsm.ErrNotInstalled), "install it (Debian, Ubuntu: apt-get install softhsm2), or name its library in SOFTHSM2_MODULE"},
	{is(softhsm.ErrUnfinished), "another run may be making it at this moment; if not, an earlier run was interrupted: remove the folder, or choose another"},
	{is(softhsm.ErrExists), "use the config in it with --config, or choose another folder"},
	{is(inventory.ErrTooMany), "make them in several runs, with `hsm-kp wrap-key rotate` between"},
	{is(operator.ErrNoAuditKey), "`hsm-kp audit checkpoint` makes it"},
	{is(errNoStore), "`hsm-kp init` makes it"},
	{is(operator.ErrNoIdentity), "`hsm-kp identity list` shows all; `hsm-kp identity create` makes one"},
	{is(identity.ErrNoCertificate), "`hsm-kp identity csr` makes the request for one, `hsm-kp identity import-cert` imports the chain"},
	{is(certificate.ErrMalformed), "the file must have certificates in PEM and nothing else; `openssl x509 -inform DER -in FILE` converts DER to PEM"},
	{as[*identity.ChainError], "the file must have the identity's certificate first, then its issuer's, and so on; x509.roots in the config names the roots"},
	{as[*identity.MissingError], "see key_packages.required_capabilities and capabilities in the config"},
	{is(certificate.ErrKey), "create the identity with suite 1, 2, 3, 5 or 7"},
	{is(inventory.ErrSuiteUnknown), "an experimental cipher suite is described under experimental in the config, and enabled there"},
	{is(inventory.ErrNoWrappingKey), "`hsm-kp init` makes the keys that the config's custody needs, `hsm-kp wrap-key create --purpose wrap` makes one for custody token"},
	{is(operator.ErrUnwrapRefused), "set it to true in the config if an MLS library is to hold the private keys"},
	{is(identity.ErrKeyMismatch), "the key in the token was replaced under the same CKA_ID; nothing was signed"},
	{is(inventory.ErrAmbiguousRef, operator.ErrAmbiguousWrappingKey), "give more of its digits"},
	{is(inventory.ErrRef), "`hsm-kp list` shows them"},
	{is(directory.ErrUnauthorized), "see bearer, certificate and ca of the directory in the config; the next run sends what was not accepted again"},
	{is(directory.ErrKnown), "another program registered the client, or the store was restored from a backup: ask the directory's operator to remove the client, then run the command again"},
	{is(directory.ErrAnswer), "see url and type of the directory in the config"},
	{is(directory.ErrRefused), "they stay pending for that directory, and the next run sends them again; `hsm-kp export --again` writes one to a file"},
	{is(operator.ErrSeveral), "name one with --directory"},
	{is(operator.ErrLeftPending), "`hsm-kp export --pending` writes the missing files"},
	{is(operator.ErrHeldBack), "`hsm-kp list --unconfirmed` shows them"},
	{is(operator.ErrNoDirectory), "describe it under directories in the config: `hsm-kp config sample` shows how"},
	{as[*operator.InterruptedError], "run the command again for the rest, or `hsm-kp sweep`"},
	{is(operator.ErrPartial, operator.ErrUnpublished, directory.ErrUnreachable), "run the command again for the rest"},
	{is(errURLPassword), "keep it in a file that PGPASSFILE names, with mode 0600, or in PGPASSWORD; certificate and peer authentication need none"},
	{is(store.ErrLogin), "give a password in PGPASSFILE or PGPASSWORD, or a certificate with sslcert and sslkey in store.url; the server's pg_hba.conf says what it requires"},
	{is(store.ErrNoDatabase), "make it (`createdb`, with encoding UTF8), or correct store.url; then `hsm-kp init` makes its tables"},
	{is(store.ErrAway), "is PostgreSQL up, and does store.url name its host and database? what was reported as done is safe; run the command again"},
	{is(store.ErrBusy), "another process has locked the store; wait for it to end and run the command again"},
	{is(store.ErrFull), "free space on the disk and run the command again: what was stored before is safe"},
	{is(syscall.ENOSPC), "free space on the disk; `hsm-kp export` writes what is stored"},
	{is(store.ErrReadOnly), "this user must be able to write to the store's file and its folder, or the database role must have the privileges"},
	{as[*store.SchemaError], "install the newer hsm-kp, or use another store"},
	{is(record.ErrNotEmpty), "name a store without records: another database, or a file that does not exist yet"},
	{is(store.ErrExists), "choose another name"},
	{is(inventory.ErrNotOurs), "its key package was made elsewhere, or is in another store"},
	{is(store.ErrReserved), "`hsm-kp welcome confirm` or `hsm-kp welcome release` ends the reservation; it also ends by itself"},
	{is(store.ErrErased), "it expired, was retired or its wrapping key was destroyed: see `hsm-kp audit show REF`"},
	{is(store.ErrForDevice), "the device opens its Welcomes; `hsm-kp provision` hands its private keys over until `hsm-kp handover confirm`"},
	{is(store.ErrOtherRelease), "another device has the name, or the same device has a new key: `hsm-kp identity rotate NAME` retires what is for the old key, and provision can start again"},
	{is(operator.ErrNotHandedOver), "nothing was confirmed; `hsm-kp provision --json` hands over, `hsm-kp list --unconfirmed` shows what is not confirmed"},
	{is(inventory.ErrNoLeaf), "it was handed over when the Welcome was opened, or erased by `hsm-kp welcome confirm --leaf`"},
	{is(inventory.ErrNothingToShow), "`hsm-kp welcome open` and `hsm-kp decrypt` use them in the token"},
	{is(vault.ErrCustody), "`hsm-kp doctor` shows what the token supports; key_packages.custody: wrapped serves every suite"},
	{is(inventory.ErrOtherToken), "name that token in the config"},
	{is(operator.ErrRetired), "`hsm-kp identity rotate` reactivates it with a new version"},
	{is(operator.ErrLessCustody), "--custody token keeps it, --custody wrapped confirms the change; key_packages.custody in the config is the default"},
	{is(operator.ErrNoChain), "`hsm-kp identity csr --next` makes the request for one; give the chain with --chain FILE"},
	{is(operator.ErrChainOfCurrent), "`hsm-kp identity csr --next` makes the request for it; `hsm-kp identity import-cert` imports a chain for the current key"},
	{is(operator.ErrNoneLeft), "`hsm-kp generate` makes more"},
	{is(audit.ErrTampered), "the store was changed from outside: compare with a backup, and with checkpoints that were kept elsewhere"},
	{as[*operator.UnvouchedKeyError], "if the previous key was lost, ask the people who made the new one for its verifier key, and also give that with --key"},
	{is(operator.ErrForeignCheckpoint), "give the verifier key that was noted when the audit key was made, with --key"},
	{is(operator.ErrNoSuchWrappingKey), "`hsm-kp wrap-key list` shows them"},
	{is(store.ErrWrappingKey), "`hsm-kp wrap-key list` shows when; what was under it cannot be recovered"},
	{is(store.ErrConsumed), "a key package is used once: ask to be added again, with another"},
	{as[*welcome.MissingPSKError], "give it with --psk ID=FILE"},
	{is(welcome.ErrForged, welcome.ErrConfirmation, welcome.ErrSignature), "nothing was used up; ask for the Welcome again, and compare the pre-shared keys, if any"},
	{is(store.ErrState), "`hsm-kp list` shows the states"},
	{configIsHere, "there is one in this folder: `--config hsm-kp.yaml`, or HSM_KP_CONFIG=hsm-kp.yaml"},
	{configMissing, "name it with --config or HSM_KP_CONFIG; `hsm-kp init --softhsm DIR` makes one for evaluation"},
	{as[*config.Error], "`hsm-kp config sample` shows every field"},
	{is(manifest.ErrEmpty), "write one line for each device; `hsm-kp provision --help` lists the fields"},
	{as[*manifest.Error], "nothing was made; `hsm-kp provision --help` lists the fields, and --check checks a manifest"},
	{is(operator.ErrDevices), "correct their lines, or the cause that each error names, and run the command again: what is ready stays as it is"},
	{isUsage, "see `hsm-kp --help` or `hsm-kp COMMAND --help`"},
	{is(token.CKR_GENERAL_ERROR), "the module gives no other reason; SoftHSM returns this if another process logs in at the same moment: run the command again"},
	{is(context.DeadlineExceeded), "the token did not answer in time"},
}

// isUsage fits a request of a command line or of the config that cannot be carried out.
func isUsage(err error) bool { return as[*usageError](err) || as[*act.RequestError](err) }

func is(targets ...error) func(error) bool {
	return func(err error) bool { return isAny(err, targets...) }
}

// configIsHere fits a missing config if the working folder has one of the usual name.
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

// configMissing fits a config file that does not exist.
func configMissing(err error) bool { return as[*config.Error](err) && errors.Is(err, fs.ErrNotExist) }
