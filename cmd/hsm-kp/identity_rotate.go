package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
)

func identityRotateCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "rotate",
		Usage:     "give an identity a new signature key, or a new certificate, and replace its key packages",
		ArgsUsage: "NAME",
		Description: `Makes the next version of the identity and as many key packages with it as others have
to be replaced; only then is it the one that signs, and the key packages before are retired:
they are handed out no more, Welcomes that used them still open for key_packages.grace of the
config, and then "hsm-kp sweep" erases their private keys. An interrupted rotation is taken up
where it was, also where nothing but the key packages before were left to be retired: of them
none is handed out from the moment that the next version signs, and they are written down as
retired batch by batch, beside everything else, which "hsm-kp sweep" finishes too.

With a basic credential the next version has a new signature key. With certificates it has
what --chain FILE certifies: the key that the identity has, or the next one, for which "hsm-kp
identity csr --next" makes the request. The old signature key stays in the token, because its
members sign with it in the groups that they are in; "hsm-kp identity destroy-key" ends it.

Nothing takes the place of key packages whose private keys are a device's (custody device or
release): "hsm-kp provision" makes others for it.

Examples:
   hsm-kp identity rotate alice --out spool/
   hsm-kp identity csr gateway --next >gateway.csr
   hsm-kp identity rotate gateway --chain gateway-chain.pem`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "chain", Usage: "the new chain of certificates from `FILE`, in PEM"},
			&cli.Uint64Flag{Name: "count", Aliases: []string{"n"}, Usage: "make `N` key packages", DefaultText: "as many as are pending, available, published or claimed"},
			custodyFlag,
			outFlag,
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, "NAME"); err != nil {
				return err
			}
			if c.IsSet("out") && c.String("out") == "" {
				return usagef("identity rotate: --out names no folder")
			}
			if c.IsSet("chain") && c.String("chain") == "" {
				return usagef("identity rotate: --chain names no file")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			return e.rotateIdentity(c)
		},
	}
}

// rotatedJSON is what `identity rotate --json` and `identity retire --json` print.
type rotatedJSON struct {
	Name         string    `json:"name"`
	Version      uint64    `json:"version"`
	Generated    uint64    `json:"generated"`
	Retired      uint64    `json:"retired"`
	RetiredUntil time.Time `json:"retired_until"`
}

func (e *env) rotateIdentity(c *cli.Context) error {
	ctx, name := c.Context, c.Args().First()
	switched, err := e.switched(ctx, name)
	if err != nil {
		return err
	}
	if switched.ID != 0 {
		e.ui.notef("the rotation of %q to version %d was interrupted: finishing it", name, switched.Version)
		return e.retireBefore(c, switched)
	}
	if err := e.Tidy(ctx); err != nil {
		return err
	}
	custody, err := e.custodyOfNext(c, name)
	if err != nil {
		return err
	}
	next, err := e.nextVersion(c, name)
	if err != nil {
		return err
	}
	if err := e.replace(c, next, custody); err != nil {
		return err
	}
	now := time.Now()
	switched, err = e.store.SwitchIdentity(ctx, name, next.Version, now.Add(time.Duration(e.config.KeyPackages.Grace)), now)
	if err != nil {
		return fmt.Errorf("rotate identity %q: %w", name, err)
	}
	return e.retireBefore(c, switched)
}

// switched returns the backlog of a rotation that was interrupted after the next version had
// become the one that signs.
func (e *env) switched(ctx context.Context, name string) (store.Backlog, error) {
	current, err := e.Record(ctx, name)
	if err != nil {
		return store.Backlog{}, err
	}
	backlogs, err := e.store.Backlogs(ctx)
	for _, b := range backlogs {
		if b.Identity == name && b.Version == current.Version {
			return b, err
		}
	}
	return store.Backlog{}, err
}

// retireBefore retires the key packages of the versions before the one that signs now. What
// it tells is of the whole rotation, in however many runs.
func (e *env) retireBefore(c *cli.Context, b store.Backlog) error {
	b, err := e.WorkOff(c.Context, b)
	if err != nil {
		return fmt.Errorf("identity %q signs as version %d now: %w", b.Identity, b.Version, err)
	}
	stock, err := e.store.Stock(c.Context, b.Identity)
	if err != nil {
		return err
	}
	generated := uint64(0)
	for _, s := range stock {
		if s.Version == b.Version {
			generated += s.Count
		}
	}
	if err := e.noteChain(c.Context, b.Identity); err != nil {
		return err
	}
	return e.printRotated(c, rotatedJSON{b.Identity, b.Version, generated, b.Moved, b.Until})
}

// noteChain says what certifies an identity, where certificates do.
func (e *env) noteChain(ctx context.Context, name string) error {
	record, err := e.Record(ctx, name)
	if err != nil {
		return err
	}
	credential, err := keypackage.ParseCredential(record.Credential)
	if err != nil {
		return fmt.Errorf("read stored credential of %q: %w", name, err)
	}
	if chain, err := credential.Chain(); err == nil && len(chain) > 0 {
		e.ui.notef("%s; %s", leafOf(chain), endOf(chain))
	}
	return nil
}

// errLessCustody reports a rotation after which private keys would leave the token that do not
// now.
var errLessCustody = errors.New("of the key packages that are replaced some have custody token, and the new ones would have custody wrapped")

// custodyOfNext is the custody of the key packages that take the place of those there are.
// Nothing falls back silently: where one of these has its private keys in the token, wrapped
// has to be asked for.
func (e *env) custodyOfNext(c *cli.Context, name string) (string, error) {
	custody, err := custodyOf(c, e.config, name)
	if err != nil || custody != vault.CustodyWrapped || c.IsSet("custody") {
		return custody, err
	}
	stock, err := e.store.Stock(c.Context, name)
	if err != nil {
		return "", err
	}
	for _, s := range stock {
		if s.Custody == vault.CustodyToken && operator.IsLive(s.State) {
			return "", fmt.Errorf("rotate identity %q: %w", name, errLessCustody)
		}
	}
	return custody, nil
}

func (e *env) printRotated(c *cli.Context, r rotatedJSON) error {
	if c.Bool("json") {
		return e.ui.json(r)
	}
	if c.Command.Name == "rotate" {
		e.ui.printf("identity %q signs as version %d now, with %s\n", r.Name, r.Version, operator.Plural(r.Generated, "new key package"))
	} else {
		e.ui.printf("identity %q signs no more\n", r.Name)
	}
	e.ui.printf("retired %s, whose Welcomes open until %s\n", operator.Plural(r.Retired, "key package"), r.RetiredUntil.Format(time.RFC3339))
	return nil
}

// nextVersion returns the version that an identity is to have, which it makes where
// there is none yet.
func (e *env) nextVersion(c *cli.Context, name string) (*store.Identity, error) {
	current, err := e.Record(c.Context, name)
	if err != nil {
		return nil, err
	}
	if err := e.CheckStamp(c.Context, &current); err != nil {
		return nil, err
	}
	credential, err := keypackage.ParseCredential(current.Credential)
	if err != nil {
		return nil, fmt.Errorf("read stored credential of %q: %w", name, err)
	}
	next, err := e.NextVersion(c.Context, name)
	switch {
	case err != nil:
		return nil, err
	case credential.Type == keypackage.CredentialX509:
		return e.nextCertified(c, &current, next)
	case c.String("chain") != "":
		return nil, usagef("identity rotate: --chain is for certificates, and %q has a basic credential", name)
	case next != nil:
		return next, nil
	}
	return e.ProposeNewKey(c.Context, &current)
}

// errNoChain reports a rotation without the certificates for it.
var errNoChain = errors.New("there is no certificate for the next version")

// nextCertified returns the next version of an identity with certificates: the one that
// the chain certifies.
func (e *env) nextCertified(c *cli.Context, current, next *store.Identity) (*store.Identity, error) {
	path := c.String("chain")
	if path == "" {
		if next != nil && certified(next) {
			return next, nil
		}
		return nil, fmt.Errorf("rotate identity %q: %w", current.Name, errNoChain)
	}
	chain, err := readChain(e.ui, path)
	if err != nil {
		return nil, err
	}
	if next != nil && (next.Version == current.Version || certifies(chain, next)) {
		return next, e.certify(c.Context, next, chain)
	}
	if err := e.CheckChain(chain, current); err != nil {
		return nil, err
	}
	if next != nil {
		err := fmt.Errorf("rotate identity %q: %w: the chain certifies the key that it has, and the next one waits for its own", current.Name, store.ErrState)
		return nil, advise(err, store.ErrState, "`hsm-kp identity csr --next` makes the request for it; `hsm-kp identity import-cert` takes a chain for the key that it has")
	}
	return e.proposeChain(c.Context, current, chain)
}

// certified reports whether a version has a chain.
func certified(id *store.Identity) bool {
	credential, err := keypackage.ParseCredential(id.Credential)
	if err != nil {
		return false
	}
	chain, err := credential.Chain()
	return err == nil && len(chain) > 0
}

// certifies reports whether a chain is for the key of a version.
func certifies(chain certificate.Chain, id *store.Identity) bool {
	return identity.CheckChain(chain, id.SignatureKey, certificate.Options{Now: time.Now()}) == nil
}

// certify makes a chain the credential of a next version.
func (e *env) certify(ctx context.Context, next *store.Identity, chain certificate.Chain) error {
	if err := e.CheckChain(chain, next); err != nil {
		return err
	}
	if _, err := e.OpenIdentity(ctx, next); err != nil {
		return err
	}
	return e.ChangeCredential(ctx, next, chain)
}

// proposeChain makes the next version of an identity with the key that it has.
func (e *env) proposeChain(ctx context.Context, current *store.Identity, chain certificate.Chain) (*store.Identity, error) {
	if _, err := e.OpenIdentity(ctx, current); err != nil {
		return nil, err
	}
	inv, err := e.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	next := *current
	if next.Version, err = e.NextNumber(ctx, current.Name); err != nil {
		return nil, err
	}
	next.State, next.RetiredAt = store.Next, time.Time{}
	next.Credential, next.CreatedAt = keypackage.X509Credential(chain.DER()).Bytes(), time.Now().UTC().Truncate(time.Second)
	if err := inv.StampIdentity(ctx, &next); err != nil {
		return nil, err
	}
	return &next, e.store.ProposeIdentity(ctx, next)
}

// replace makes the key packages of a next version that it does not have yet.
func (e *env) replace(c *cli.Context, next *store.Identity, custody string) error {
	stock, err := e.store.Stock(c.Context, next.Name)
	if err != nil {
		return err
	}
	if n := notReplaced(stock, next.Version); n > 0 {
		e.ui.notef("not replaced, as their private keys are a device's: %s of %q; `hsm-kp provision` makes others", operator.Plural(n, "key package"), next.Name)
	}
	for _, lastResort := range []bool{false, true} {
		n := wanting(stock, next.Version, lastResort)
		if c.IsSet("count") && !lastResort {
			n = c.Uint64("count")
			n -= min(n, made(stock, next.Version))
		}
		if n == 0 {
			continue
		}
		if err := e.GenerateVersion(c.Context, next, custody, c.String("out"), n, lastResort); err != nil {
			return err
		}
	}
	return nil
}

// made is how many key packages of a version there are already that are for single use.
func made(stock []store.Stock, version uint64) (n uint64) {
	for _, s := range stock {
		if s.Version == version && !s.LastResort {
			n += s.Count
		}
	}
	return n
}

// wanting is how many key packages of a kind the versions before have that are or may
// be used, less those of the next one. One of last resort takes the place of all. Those whose
// private keys are devices' are not to be replaced by others: see notReplaced.
func wanting(stock []store.Stock, next uint64, lastResort bool) uint64 {
	var before, after uint64
	for _, s := range stock {
		switch {
		case s.LastResort != lastResort || !operator.IsLive(s.State) || !operator.IsKept(s.Custody):
		case s.Version < next:
			before += s.Count
		default:
			after += s.Count
		}
	}
	if lastResort {
		before = min(before, 1)
	}
	return before - min(before, after)
}

// notReplaced is how many key packages the versions before have whose private keys are a device's:
// only what its line of a manifest says can make others.
func notReplaced(stock []store.Stock, next uint64) (n uint64) {
	for _, s := range stock {
		if s.Version < next && operator.IsLive(s.State) && !operator.IsKept(s.Custody) {
			n += s.Count
		}
	}
	return n
}

func identityRetireCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "retire",
		Usage:     "end an identity: it signs no more, and its key packages are retired",
		ArgsUsage: "NAME",
		Description: `Its key packages are handed out no more; Welcomes that used them still open for
key_packages.grace of the config, and then "hsm-kp sweep" erases their private keys. None is
handed out from the first moment on; they are written down as retired batch by batch, beside
everything else. Interrupted, run it again, or "hsm-kp sweep". The signature key stays in the
token until "hsm-kp identity destroy-key". "hsm-kp identity rotate"
begins the identity anew.

Examples:
   hsm-kp identity retire alice
   hsm-kp identity retire alice && hsm-kp identity destroy-key alice --force`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			name, now := c.Args().First(), time.Now()
			record, err := e.Record(c.Context, name)
			if err != nil {
				return err
			}
			b, err := e.store.RetireIdentity(c.Context, name, now.Add(time.Duration(e.config.KeyPackages.Grace)), now)
			if err != nil {
				return err
			}
			if b, err = e.WorkOff(c.Context, b); err != nil {
				return fmt.Errorf("identity %q signs no more: %w", name, err)
			}
			return e.printRotated(c, rotatedJSON{name, record.Version, 0, b.Moved, b.Until})
		}, "NAME"),
	}
}

func identityDestroyKeyCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "destroy-key",
		Usage:     "destroy an old signature key in the token",
		ArgsUsage: "NAME",
		Description: `For the key of a version that signs no more: an old one, or that of a retired identity;
or of a next version that is given up.
Members that joined a group with it sign with it there until they have replaced it: make sure
that they have. It is refused while key packages that it signed may still be used, unless
--force says so. It cannot be undone.

Examples:
   hsm-kp identity show alice
   hsm-kp identity destroy-key alice --version 1`,
		Flags: []cli.Flag{
			&cli.Uint64Flag{Name: "version", Usage: "the key of version `N`", DefaultText: "the current one, of a retired identity"},
			&cli.BoolFlag{Name: "force", Usage: "though key packages that it signed may still be used"},
			jsonFlag,
		},
		Action: with(u, func(c *cli.Context, e *env) error {
			return e.destroySignatureKey(c)
		}, "NAME"),
	}
}

func (e *env) destroySignatureKey(c *cli.Context) error {
	name := c.Args().First()
	record, err := e.Record(c.Context, name)
	if err != nil {
		return err
	}
	number := record.Version
	if c.IsSet("version") {
		number = c.Uint64("version")
	}
	inv, err := e.Inventory(c.Context)
	if err != nil {
		return err
	}
	destroyed, err := inv.DestroySignatureKey(c.Context, name, number, c.Bool("force"), time.Now())
	if err != nil {
		err = advise(err, store.ErrState, "`hsm-kp identity show` shows the versions; `hsm-kp identity rotate` makes another one current, `hsm-kp identity retire` ends all")
		return advise(err, store.ErrInUse, "`hsm-kp sweep` erases what was retired once its grace is over; --force destroys the key all the same, unless another signs with it")
	}
	if c.Bool("json") {
		return e.ui.json(versionOf(&destroyed))
	}
	e.ui.printf("destroyed signature key %x of identity %q, version %d\n", destroyed.KeyID, name, number)
	return nil
}
