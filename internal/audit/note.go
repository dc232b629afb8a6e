package audit

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"
)

// ErrSignature reports a signature that does not verify: of a note, or one that
// a token has just made.
var ErrSignature = errors.New("signature does not verify")

// Sign returns the checkpoint as a signed note (C2SP signed-note): its Text, an empty line, and the
// line
//
//	— <origin> <base64 of uint32 key ID || signature>
//
// with its newline. The name of the key is the origin. The key's type decides:
//
//	Ed25519      the signature is that of RFC 8032 over the text, 64 bytes;
//	             type 0x01
//	ECDSA P-256  the signature is ECDSA over SHA-256 of the text, in DER;
//	             type 0x02
//
// See VerifierKey for the key ID. Sign returns ErrKey for other keys, and ErrOrigin if the origin
// cannot name a key. As a token may be faulty, it verifies the signature and returns ErrSignature
// if that fails. The key should sign nothing but checkpoints: a note carries no label against other
// uses. Only keys in software use entropy.
func Sign(c Checkpoint, key crypto.Signer) ([]byte, error) {
	public, err := newNoteKey(c.Origin, key.Public())
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	signed, err := note.Sign(&note.Note{Text: c.Text()}, &noteSigner{public, key})
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return signed, nil
}

// noteSigner is a note.Signer whose key may be in a token.
type noteSigner struct {
	*noteKey
	key crypto.Signer
}

var _ note.Signer = (*noteSigner)(nil)

// Sign signs message and verifies the signature.
func (s *noteSigner) Sign(message []byte) ([]byte, error) {
	input, opts := message, crypto.SignerOpts(crypto.Hash(0))
	if s.kind == noteECDSA {
		digest := sha256.Sum256(message)
		input, opts = digest[:], crypto.SHA256
	}
	signature, err := s.key.Sign(rand.Reader, input, opts)
	if err != nil {
		return nil, err
	}
	if !s.Verify(message, signature) {
		return nil, ErrSignature
	}
	return signature, nil
}

// VerifierKey returns what an auditor pins to open the notes of a key (C2SP
// signed-note, "Verifier keys"):
//
//	<name>+<8 hex digits of the key ID>+<base64 of type || public key>
//
// The public key is an ed25519.PublicKey or an *ecdsa.PublicKey on P-256. The
// type is one byte, and the key ID the first four bytes of a hash:
//
//	         type  public key           key ID
//	Ed25519  0x01  32 bytes, RFC 8032   SHA-256(name || 0x0A || 0x01 || public key)
//	P-256    0x02  SPKI in DER          SHA-256(public key)
//
// The error is ErrOrigin or ErrKey.
func VerifierKey(name string, key crypto.PublicKey) (string, error) {
	k, err := newNoteKey(name, key)
	if err != nil {
		return "", fmt.Errorf("make verifier key: %w", err)
	}
	return k.String(), nil
}

// ErrOtherKey reports a key that is not the one that a verifier key is of.
var ErrOtherKey = errors.New("the token's key is not the one that the store knows")

// CheckVerifier checks that a public key is the one that the verifier key of a name is of. The error
// is ErrOtherKey, ErrOrigin or ErrKey.
func CheckVerifier(name, verifier string, key crypto.PublicKey) error {
	got, err := VerifierKey(name, key)
	if err == nil && got != verifier {
		err = fmt.Errorf("audit key of %s: %w", name, ErrOtherKey)
	}
	return err
}

// CheckVerifierKey fails unless Open accepts text as a verifier key. The error wraps ErrKey or
// ErrOrigin.
func CheckVerifierKey(vkey string) error {
	_, err := parseNoteKey(vkey)
	return err
}

// Open returns the checkpoint of a note if the key of vkey signed it and its origin is the name in
// vkey. It ignores signatures of other keys, such as those of witnesses; a note may have up to 100
// in all. The error is ErrKey if vkey is malformed, ErrSignature if the key did not sign or its
// signature does not verify, and ErrCheckpoint if the note is malformed or has other content.
func Open(signed []byte, vkey string) (Checkpoint, error) {
	c, err := open(signed, vkey)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("open checkpoint: %w", err)
	}
	return c, nil
}

func open(signed []byte, vkey string) (Checkpoint, error) {
	key, err := parseNoteKey(vkey)
	if err != nil {
		return Checkpoint{}, err
	}
	n, err := note.Open(signed, note.VerifierList(key))
	if err != nil {
		return Checkpoint{}, noteError(err)
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != key.name {
		return Checkpoint{}, fmt.Errorf("%w of %q: its origin is %q", ErrCheckpoint, key.name, c.Origin)
	}
	return c, nil
}

// noteError converts an error of note.Open to one of this package.
func noteError(err error) error {
	if _, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		return fmt.Errorf("%w: the key did not sign it", ErrSignature)
	}
	if _, ok := errors.AsType[*note.InvalidSignatureError](err); ok {
		return ErrSignature
	}
	return fmt.Errorf("%w: %w", ErrCheckpoint, err)
}
