// Package welcome opens a Welcome (RFC 9420, Section 12.4.3.1) with the private init key of a
// key package: it finds the secrets for the key package, derives those of the epoch, decrypts
// the GroupInfo and checks its confirmation tag.
//
// It builds no ratchet tree: an MLS library makes the member from the secrets and the
// GroupInfo. The package does no I/O and keeps no state, so a Welcome that does not open
// changes nothing. Its functions may be called by several goroutines at once.
package welcome

import (
	"bytes"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

var (
	// ErrNotForIt reports a Welcome for other key packages.
	ErrNotForIt = errors.New("the Welcome is not for this key package")
	// ErrSuite reports a Welcome of another cipher suite than the key package's.
	ErrSuite = errors.New("the Welcome is of another cipher suite")
	// ErrForged reports a Welcome that was damaged or that no group made: a part of it
	// does not decrypt, is malformed, or contradicts another part.
	ErrForged = errors.New("the Welcome is damaged or forged")
	// ErrConfirmation reports a confirmation_tag that is not the epoch's. A wrong PSK
	// gives this error or ErrForged.
	ErrConfirmation = errors.New("the confirmation tag is not that of the epoch")
	// ErrSignature reports a GroupInfo whose signature does not verify with the key of
	// its signer's leaf.
	ErrSignature = errors.New("the signature of the GroupInfo is not that of its signer")
)

// MissingPSKError reports pre-shared keys that the Welcome needs and Options.PSK does not have.
type MissingPSKError struct{ Missing []PSKID }

func (e *MissingPSKError) Error() string {
	return fmt.Sprintf("the Welcome needs %d pre-shared keys that were not given, the first being %v", len(e.Missing), e.Missing[0])
}

// Options are the optional inputs of Open.
type Options struct {
	// PSK returns the pre-shared key with an id, and whether there is one. Nil has none.
	// Open does not change or keep the key.
	PSK func(PSKID) ([]byte, bool)
	// RatchetTree is the group's tree, if the Welcome does not have it: the data of a
	// ratchet_tree extension (RFC 9420, Section 12.4.3.3). It may be nil.
	RatchetTree []byte
}

// Opened is the content of a Welcome for one new member. The caller clears it after use. It
// prints as REDACTED.
type Opened struct {
	GroupInfo *keypackage.GroupInfo
	// PSKs are the ids of the pre-shared keys of the epoch.
	PSKs []PSKID
	// JoinerSecret, Nh bytes, and PathSecret, nil if there is none, are the content of
	// GroupSecrets. An MLS library makes the member from them and the GroupInfo.
	JoinerSecret, PathSecret []byte
	// EpochAuthenticator is the same for all members of the epoch, who may compare it (RFC
	// 9420, Section 8.7): Nh bytes.
	EpochAuthenticator []byte
	// SignatureVerified reports whether Open had the ratchet tree, and so verified the
	// signature of the GroupInfo.
	SignatureVerified bool
}

// GroupSecrets returns the encoded GroupSecrets (RFC 9420, Section 12.4.3.1) as they were
// encrypted to the new member: opaque joiner_secret<V>, optional<PathSecret>, PreSharedKeyID
// psks<V>. They are secret, and in new memory that the caller clears.
func (o *Opened) GroupSecrets() []byte {
	b := wire.AppendVector(nil, o.JoinerSecret)
	if o.PathSecret == nil {
		b = append(b, 0)
	} else {
		b = wire.AppendVector(append(b, 1), o.PathSecret)
	}
	var psks []byte
	for i := range o.PSKs {
		psks = o.PSKs[i].append(psks)
	}
	return wire.AppendVector(b, psks)
}

// Format prints REDACTED under every verb.
func (o Opened) Format(f fmt.State, _ rune) { io.WriteString(f, "REDACTED") }

// MarshalText returns REDACTED, and so do the encoders of package json and log/slog.
func (o Opened) MarshalText() ([]byte, error) { return []byte("REDACTED"), nil }

// Clear overwrites JoinerSecret and PathSecret. It does nothing to a nil Opened.
func (o *Opened) Clear() {
	if o != nil {
		clear(o.JoinerSecret)
		clear(o.PathSecret)
	}
}

// Find returns the encrypted secrets for the key package with a reference, and whether there
// are any.
func Find(w *keypackage.Welcome, ref keypackage.Ref) (keypackage.EncryptedGroupSecrets, bool) {
	for _, s := range w.Secrets {
		if bytes.Equal(s.NewMember, ref) {
			return s, true
		}
	}
	return keypackage.EncryptedGroupSecrets{}, false
}

// Open opens a Welcome for a key package with the private key of its init_key. It does not
// check the key package or its lifetime. The error is ErrNotForIt or a *MissingPSKError, or
// wraps ErrSuite, ErrForged, ErrConfirmation or ErrSignature; any other is about the private
// key or the cipher suite.
func Open(w *keypackage.Welcome, kp *keypackage.KeyPackage, init hpke.PrivateKey, o Options) (*Opened, error) {
	ref, err := kp.Ref()
	if err != nil {
		return nil, err
	}
	suite, _ := ciphersuite.Lookup(kp.CipherSuite) // Ref has looked it up
	encrypted, ok := Find(w, ref)
	switch {
	case !ok:
		return nil, ErrNotForIt
	case w.CipherSuite != kp.CipherSuite:
		return nil, fmt.Errorf("%w: %v, the key package's is %v", ErrSuite, w.CipherSuite, kp.CipherSuite)
	}
	plaintext, err := hpke.DecryptWithLabel(init, "Welcome", w.EncryptedGroupInfo, encrypted.KEMOutput, encrypted.Ciphertext)
	if errors.Is(err, hpke.ErrOpen) {
		return nil, fmt.Errorf("%w: its secrets do not decrypt", ErrForged)
	}
	if err != nil {
		return nil, err
	}
	defer clear(plaintext)
	secrets, err := parseGroupSecrets(plaintext)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForged, err)
	}
	opened, err := secrets.open(suite, w, o)
	if err != nil {
		secrets.clear()
		return nil, err
	}
	return opened, nil
}

// groupSecrets is GroupSecrets (RFC 9420, Section 12.4.3.1).
type groupSecrets struct {
	joiner, path []byte
	psks         []PSKID
}

func (s *groupSecrets) clear() {
	clear(s.joiner)
	clear(s.path)
}

// parseGroupSecrets decodes opaque joiner_secret<V>, optional<PathSecret> path_secret,
// PreSharedKeyID psks<V>. It copies everything from b.
func parseGroupSecrets(b []byte) (*groupSecrets, error) {
	r := wire.NewReader(b)
	s := &groupSecrets{joiner: bytes.Clone(r.Vector())}
	switch present := r.Uint8(); present {
	case 0:
	case 1:
		s.path = bytes.Clone(r.Vector())
	default:
		r.Fail(fmt.Errorf("optional is %d", present))
	}
	list := wire.NewReader(r.Vector())
	for list.Len() > 0 {
		s.psks = append(s.psks, readPSKID(list))
	}
	if err := errors.Join(list.Finish(), r.Finish()); err != nil {
		s.clear()
		return nil, fmt.Errorf("parse GroupSecrets: %w", err)
	}
	return s, nil
}

// open derives the epoch (RFC 9420, Section 8) and opens the GroupInfo.
func (s *groupSecrets) open(suite *ciphersuite.Suite, w *keypackage.Welcome, o Options) (*Opened, error) {
	psk, err := pskSecret(suite, s.psks, o.PSK)
	if err != nil {
		return nil, err
	}
	defer clear(psk)
	intermediate, err := suite.Extract(s.joiner, psk)
	if err != nil {
		return nil, err
	}
	defer clear(intermediate)
	info, err := openGroupInfo(suite, intermediate, w.EncryptedGroupInfo)
	if err != nil {
		return nil, err
	}
	c := &info.GroupContext
	if c.Version != keypackage.MLS10 || c.CipherSuite != w.CipherSuite {
		return nil, fmt.Errorf("%w: its group is of version %v and cipher suite %v", ErrForged, c.Version, c.CipherSuite)
	}
	authenticator, err := confirm(suite, intermediate, info)
	if err != nil {
		return nil, err
	}
	verified, err := verifySigner(suite, info, o.RatchetTree)
	if err != nil {
		return nil, err
	}
	return &Opened{
		GroupInfo: info, PSKs: s.psks, JoinerSecret: s.joiner, PathSecret: s.path,
		EpochAuthenticator: authenticator, SignatureVerified: verified,
	}, nil
}

// openGroupInfo decrypts a GroupInfo with the key and nonce of the welcome_secret.
func openGroupInfo(suite *ciphersuite.Suite, intermediate, encrypted []byte) (*keypackage.GroupInfo, error) {
	secret, err := suite.DeriveSecret(intermediate, "welcome")
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	key, err := suite.ExpandWithLabel(secret, "key", nil, suite.Nk)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	nonce, err := suite.ExpandWithLabel(secret, "nonce", nil, suite.Nn)
	if err != nil {
		return nil, err
	}
	aead, err := suite.NewAEAD(key)
	if err != nil {
		return nil, err
	}
	plaintext, err := aead.Open(nil, nonce, encrypted, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: its GroupInfo does not decrypt", ErrForged)
	}
	info, err := keypackage.ParseGroupInfo(plaintext)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForged, err)
	}
	return info, nil
}

// confirm checks the confirmation_tag and returns the epoch_authenticator.
func confirm(suite *ciphersuite.Suite, intermediate []byte, info *keypackage.GroupInfo) ([]byte, error) {
	epoch, err := suite.ExpandWithLabel(intermediate, "epoch", info.GroupContext.Bytes(), suite.Nh)
	if err != nil {
		return nil, err
	}
	defer clear(epoch)
	key, err := suite.DeriveSecret(epoch, "confirm")
	if err != nil {
		return nil, err
	}
	defer clear(key)
	mac := hmac.New(suite.Hash.New, key)
	mac.Write(info.GroupContext.ConfirmedTranscriptHash)
	if !hmac.Equal(mac.Sum(nil), info.ConfirmationTag) {
		return nil, ErrConfirmation
	}
	return suite.DeriveSecret(epoch, "authentication")
}

// verifySigner checks the signature of the GroupInfo if there is a tree, and reports whether
// there is.
func verifySigner(suite *ciphersuite.Suite, info *keypackage.GroupInfo, tree []byte) (bool, error) {
	if carried, ok := info.RatchetTree(); ok {
		tree = carried
	}
	if tree == nil {
		return false, nil
	}
	leaf, err := keypackage.LeafAt(tree, info.Signer)
	switch {
	case err != nil:
		return false, fmt.Errorf("%w: %w", ErrForged, err)
	case leaf == nil:
		return false, fmt.Errorf("%w: leaf %d is blank", ErrSignature, info.Signer)
	}
	if err := info.Verify(suite, leaf.SignatureKey); err != nil {
		return false, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return true, nil
}
