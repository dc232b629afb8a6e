package server

import (
	"bytes"
	"context"
	"errors"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/welcome"
)

// OpenWelcome implements KeyPackageService.
func (s *Server) OpenWelcome(ctx context.Context, r *connect.Request[hsmkpv1.OpenWelcomeRequest]) (*connect.Response[hsmkpv1.OpenWelcomeResponse], error) {
	ctx, err := s.admit(ctx, act.OpenWelcome, r.Msg.GetIdentity(), 1)
	if err != nil {
		return nil, err
	}
	if r.Msg.GetIdentity() == "" {
		return nil, malformed("identity is missing")
	}
	w, err := keypackage.DecodeWelcome(r.Msg.GetWelcome())
	if err != nil {
		return nil, malformed("welcome is not a Welcome")
	}
	o, err := s.Operator.OpenWelcome(ctx, operator.OpenWelcomeRequest{
		Welcome: w, Identity: r.Msg.GetIdentity(), PSK: psks(r.Msg.GetPsks()), RatchetTree: r.Msg.GetRatchetTree(),
	})
	if err != nil {
		return nil, err
	}
	defer o.Clear()
	return connect.NewResponse(&hsmkpv1.OpenWelcomeResponse{
		Ref:                o.Record.Ref,
		WelcomeDigest:      o.Record.WelcomeDigest,
		ReservedUntil:      timestamppb.New(o.Record.ReservedUntil),
		GroupInfo:          o.GroupInfo.Bytes(),
		JoinerSecret:       bytes.Clone(o.JoinerSecret),
		PathSecret:         bytes.Clone(o.PathSecret),
		EpochAuthenticator: bytes.Clone(o.EpochAuthenticator),
		SignatureVerified:  o.SignatureVerified,
	}), nil
}

// psks returns a function that looks up a request's external pre-shared keys.
func psks(given []*hsmkpv1.PreSharedKey) func(welcome.PSKID) ([]byte, bool) {
	return func(id welcome.PSKID) ([]byte, bool) {
		for _, k := range given {
			if id.Type == welcome.PSKExternal && bytes.Equal(k.GetId(), id.ID) {
				return k.GetSecret(), true
			}
		}
		return nil, false
	}
}

// ConfirmWelcome implements KeyPackageService.
func (s *Server) ConfirmWelcome(ctx context.Context, r *connect.Request[hsmkpv1.ConfirmWelcomeRequest]) (*connect.Response[hsmkpv1.ConfirmWelcomeResponse], error) {
	state, err := s.end(ctx, act.ConfirmWelcome, r.Msg.GetRef(), r.Msg.GetWelcomeDigest(), s.confirm)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&hsmkpv1.ConfirmWelcomeResponse{State: state}), nil
}

// confirm ends the life of a key package. Confirming again with the same Welcome is not an error:
// the earlier answer may have been lost.
func (s *Server) confirm(ctx context.Context, ref, digest []byte) (store.KeyPackage, error) {
	record, err := s.Operator.ConfirmWelcome(ctx, ref, digest)
	if !errors.Is(err, store.ErrState) || len(digest) == 0 {
		return record, err
	}
	record, lookup := s.Operator.KeyPackage(ctx, ref)
	if lookup == nil && record.State != store.Reserved && bytes.Equal(record.WelcomeDigest, digest) {
		return record, nil
	}
	return record, err
}

// ReleaseWelcome implements KeyPackageService.
func (s *Server) ReleaseWelcome(ctx context.Context, r *connect.Request[hsmkpv1.ReleaseWelcomeRequest]) (*connect.Response[hsmkpv1.ReleaseWelcomeResponse], error) {
	state, err := s.end(ctx, act.ReleaseWelcome, r.Msg.GetRef(), r.Msg.GetWelcomeDigest(), s.Operator.ReleaseWelcome)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&hsmkpv1.ReleaseWelcomeResponse{State: state}), nil
}

// end ends a reservation, and returns the state of the key package after it.
func (s *Server) end(ctx context.Context, op act.Act, ref, digest []byte, f func(ctx context.Context, ref, digest []byte) (store.KeyPackage, error)) (hsmkpv1.State, error) {
	ctx, _, err := s.admitRef(ctx, op, ref)
	if err != nil {
		return 0, err
	}
	record, err := f(ctx, ref, digest)
	return stateOf(record.State), err
}

// Labels of what is encrypted to a key package.
const (
	labelWelcome = "Welcome"        // for its init key (RFC 9420, Section 12.4.3.1)
	labelPath    = "UpdatePathNode" // for its leaf (Section 7.6)
)

// DecryptWithLabel implements KeyPackageService.
func (s *Server) DecryptWithLabel(ctx context.Context, r *connect.Request[hsmkpv1.DecryptWithLabelRequest]) (*connect.Response[hsmkpv1.DecryptWithLabelResponse], error) {
	ctx, record, err := s.admitRef(ctx, act.DecryptWithLabel, r.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	var out *hsmkpv1.DecryptWithLabelResponse
	switch r.Msg.GetLabel() {
	case labelWelcome:
		out, err = s.decryptGroupSecrets(ctx, record, r.Msg)
	case labelPath:
		out, err = s.decryptPathSecret(ctx, record, r.Msg)
	default:
		err = errLabel
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(out), nil
}

// decryptGroupSecrets decrypts with the init key, which is used once. The ciphertext must prove
// itself before it uses up the key package: ciphertext and context form a Welcome for this key
// package alone, which is opened and reserved like any other.
func (s *Server) decryptGroupSecrets(ctx context.Context, record *store.KeyPackage, m *hsmkpv1.DecryptWithLabelRequest) (*hsmkpv1.DecryptWithLabelResponse, error) {
	o, err := s.Operator.OpenWelcome(ctx, operator.OpenWelcomeRequest{
		Welcome: &keypackage.Welcome{
			CipherSuite: ciphersuite.ID(record.Suite),
			Secrets: []keypackage.EncryptedGroupSecrets{
				{NewMember: record.Ref, KEMOutput: m.GetKemOutput(), Ciphertext: m.GetCiphertext()},
			},
			EncryptedGroupInfo: m.GetContext(),
		},
		Identity: record.Identity, PSK: psks(m.GetPsks()),
	})
	if err != nil {
		return nil, err
	}
	defer o.Clear()
	return &hsmkpv1.DecryptWithLabelResponse{
		Plaintext: o.GroupSecrets(), WelcomeDigest: o.Record.WelcomeDigest, ReservedUntil: timestamppb.New(o.Record.ReservedUntil),
	}, nil
}

// decryptPathSecret decrypts with the key of the leaf.
func (s *Server) decryptPathSecret(ctx context.Context, record *store.KeyPackage, m *hsmkpv1.DecryptWithLabelRequest) (*hsmkpv1.DecryptWithLabelResponse, error) {
	if err := contextOf(record, m.GetContext()); err != nil {
		return nil, err
	}
	secret, err := s.Operator.DecryptPathSecret(ctx, record.Ref, inventory.Ciphertext{
		Context: m.GetContext(), KEMOutput: m.GetKemOutput(), Ciphertext: m.GetCiphertext(),
	})
	if err != nil {
		return nil, err
	}
	return &hsmkpv1.DecryptWithLabelResponse{Plaintext: secret}, nil
}
