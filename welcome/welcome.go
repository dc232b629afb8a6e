// Package welcome opens a Welcome (RFC 9420, Section 12.4.3.1) with the private init
// key of a key package: it finds the secrets that are for it, derives the epoch's, and
// believes nothing that the confirmation tag does not confirm.
//
// It builds no ratchet tree: what a member needs beyond the secrets, an MLS library
// makes of the GroupInfo. The package is pure, and changes nothing: a Welcome that does
// not open costs nothing.
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
	// ErrNotForIt reports a Welcome that names other key packages.
	ErrNotForIt = errors.New("the Welcome is not for this key package")
	// ErrSuite reports a Welcome of another cipher suite than the key package's.
	ErrSuite = errors.New("the Welcome is of another cipher suite")
	// ErrForged reports a Welcome that was damaged, or that its group never made:
	// something in it does not decrypt, or contradicts what it says elsewhere.
	ErrForged = errors.New("the Welcome is damaged or forged")
	// ErrConfirmation reports a confirmation_tag that is not the epoch's. A PSK that
	// is not the group's ends so, or as ErrForged.
	ErrConfirmation = errors.New("the confirmation tag is not that of the epoch")
	// ErrSignature reports a GroupInfo whose signature is not that of its signer.
	ErrSignature = errors.New("the signature of the GroupInfo is not that of its signer")
)

// MissingPSKError reports pre-shared keys that the Welcome needs and the caller did
// not have.
type MissingPSKError struct{ Missing []PSKID }

func (e *MissingPSKError) Error() string {
	return fmt.Sprintf("the Welcome needs %d pre-shared keys that were not given, the first being %v", len(e.Missing), e.Missing[0])
}

// Options are what opening needs beside the Welcome and the key.
type Options struct {
	// PSK returns the pre-shared key with an id, or false. It may be nil.
	PSK func(PSKID) ([]byte, bool)
	// RatchetTree is the group's tree where the Welcome does not carry it: the data
	// of a ratchet_tree extension. It may be nil.
	RatchetTree []byte
}

// Opened is what a Welcome says to one new member. Clear it after use.
type Opened struct {
	GroupInfo *keypackage.GroupInfo
	// PSKs are the pre-shared keys that went into the epoch.
	PSKs []PSKID
	// JoinerSecret, and PathSecret where there is one, are what GroupSecrets holds:
	// with the GroupInfo an MLS library makes the member of them.
	JoinerSecret, PathSecret []byte
	// EpochAuthenticator is the same for all members of the epoch (Section 8.7), and
	// no secret between them.
	EpochAuthenticator []byte
	// SignatureVerified reports whether the signer's leaf was at hand, so that the
	// signature of the GroupInfo was checked.
	SignatureVerified bool
}

// GroupSecrets encodes GroupSecrets (RFC 9420, Section 12.4.3.1) as they were encrypted to
// the new member: opaque joiner_secret<V>, optional<PathSecret>, PreSharedKeyID psks<V>. The
// bytes are secret, and the caller's.
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

// Clear overwrites the secrets.
func (o *Opened) Clear() {
	if o != nil {
		clear(o.JoinerSecret)
		clear(o.PathSecret)
	}
}

// Find returns the secrets that are for the key package ref, or false.
func Find(w *keypackage.Welcome, ref keypackage.Ref) (keypackage.EncryptedGroupSecrets, bool) {
	for _, s := range w.Secrets {
		if bytes.Equal(s.NewMember, ref) {
			return s, true
		}
	}
	return keypackage.EncryptedGroupSecrets{}, false
}

// Open opens a Welcome for a key package with the private key of its init_key. The
// error is ErrNotForIt, ErrSuite, a *MissingPSKError, or wraps ErrForged,
// ErrConfirmation or ErrSignature; any other is about the private key.
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

// parseGroupSecrets decodes opaque joiner_secret<V>, optional<PathSecret>
// path_secret, PreSharedKeyID psks<V>. The result shares nothing with b.
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

// open derives the epoch (RFC 9420, Section 8) and opens the GroupInfo with it.
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

// openGroupInfo decrypts a GroupInfo with the key and nonce that come from the
// welcome_secret.
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

// verifySigner checks the signature of the GroupInfo where the tree is at hand, and
// reports whether it was.
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
