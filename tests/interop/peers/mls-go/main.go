// Mls-go is the peer for github.com/thomas-vilte/mls-go; ../README.md describes its protocol.
package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"

	mlsgo "github.com/thomas-vilte/mls-go"
	"github.com/thomas-vilte/mls-go/ciphersuite"
	"github.com/thomas-vilte/mls-go/framing"
	"github.com/thomas-vilte/mls-go/group"
	"github.com/thomas-vilte/mls-go/keypackages"
)

const library = "github.com/thomas-vilte/mls-go"

var notes = []string{
	"The library has no interface for a signer: a member signs with a private key that is handed over.",
	"It adds, sends and receives with its Client, and joins with group.JoinFromWelcome: a Client joins only with key packages that it made itself.",
	"A key package is validated by KeyPackage.Validate and KeyPackage.Verify; neither looks at the leaf's signature or at its lifetime.",
	"JoinFromWelcome accepts no ratchet tree beside the Welcome.",
}

type request struct {
	Op                   string `json:"op"`
	Suite                uint16 `json:"suite"`
	KeyPackage           octets `json:"keyPackage"`
	InitPrivateKey       octets `json:"initPrivateKey"`
	EncryptionPrivateKey octets `json:"encryptionPrivateKey"`
	SignaturePrivateKey  octets `json:"signaturePrivateKey"`
	Welcome              octets `json:"welcome"`
	RatchetTree          octets `json:"ratchetTree"`
	Group                string `json:"group"`
	Data                 octets `json:"data"`
	Message              octets `json:"message"`
}

type reply struct {
	OK                 bool     `json:"ok"`
	Error              string   `json:"error,omitempty"`
	Unsupported        bool     `json:"unsupported,omitempty"`
	Name               string   `json:"name,omitempty"`
	Version            string   `json:"version,omitempty"`
	Suites             []uint16 `json:"suites,omitempty"`
	Signer             string   `json:"signer,omitempty"`
	Notes              []string `json:"notes,omitempty"`
	KeyPackage         octets   `json:"keyPackage,omitempty"`
	Group              string   `json:"group,omitempty"`
	Welcome            octets   `json:"welcome,omitempty"`
	EpochAuthenticator octets   `json:"epochAuthenticator,omitempty"`
	Message            octets   `json:"message,omitempty"`
	Data               *octets  `json:"data,omitempty"` // an empty message is data too
}

// octets are hexadecimal in JSON.
type octets []byte

func (o octets) MarshalText() ([]byte, error) {
	return hex.AppendEncode(nil, o), nil
}

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.AppendDecode(nil, text)
	return err
}

// unsupported reports what the library cannot do.
type unsupported string

func (u unsupported) Error() string { return string(u) }

// member is what the operations on a group need of a member.
type member interface {
	commit() ([]byte, error)
	process(message []byte) error
	epochAuthenticator() ([]byte, error)
	send(data []byte) ([]byte, error)
	receive(message []byte) ([]byte, error)
}

type peer struct {
	members map[string]member
}

func main() {
	p := peer{members: map[string]member{}}
	if err := p.serve(os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func (p *peer) serve(in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	replies := json.NewEncoder(out)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			if err := replies.Encode(p.answer(line)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (p *peer) answer(line []byte) (answer reply) {
	defer func() {
		if cause := recover(); cause != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", cause, debug.Stack())
			answer = reply{Error: fmt.Sprintf("panic: %v", cause)}
		}
	}()
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return reply{Error: err.Error()}
	}
	answer, err := p.do(&r)
	if err != nil {
		var missing unsupported
		return reply{Error: err.Error(), Unsupported: errors.As(err, &missing)}
	}
	answer.OK = true
	return answer
}

func (p *peer) do(r *request) (reply, error) {
	switch r.Op {
	case "hello":
		return hello()
	case "keyPackage":
		return makeKeyPackage(r)
	case "validate":
		return validate(r)
	case "add":
		return p.add(r)
	case "join":
		return p.join(r)
	case "commit":
		return p.commit(r)
	case "process":
		return p.process(r)
	case "send":
		m, err := p.member(r.Group)
		if err != nil {
			return reply{}, err
		}
		message, err := m.send(r.Data)
		return reply{Message: message}, err
	case "receive":
		m, err := p.member(r.Group)
		if err != nil {
			return reply{}, err
		}
		data, err := m.receive(r.Message)
		return reply{Data: (*octets)(&data)}, err
	default:
		return reply{}, unsupported("no operation " + strconv.Quote(r.Op))
	}
}

func (p *peer) commit(r *request) (reply, error) {
	m, err := p.member(r.Group)
	if err != nil {
		return reply{}, err
	}
	message, err := m.commit()
	if err != nil {
		return reply{}, err
	}
	authenticator, err := m.epochAuthenticator()
	return reply{Message: message, EpochAuthenticator: authenticator}, err
}

func (p *peer) process(r *request) (reply, error) {
	m, err := p.member(r.Group)
	if err != nil {
		return reply{}, err
	}
	if err := m.process(r.Message); err != nil {
		return reply{}, err
	}
	authenticator, err := m.epochAuthenticator()
	return reply{EpochAuthenticator: authenticator}, err
}

// keep gives a member a name for the operations on its group.
func (p *peer) keep(m member) string {
	name := strconv.Itoa(len(p.members) + 1)
	p.members[name] = m
	return name
}

func (p *peer) member(name string) (member, error) {
	m, ok := p.members[name]
	if !ok {
		return nil, fmt.Errorf("no group %q", name)
	}
	return m, nil
}

func hello() (reply, error) {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return reply{}, errors.New("the program has no build information")
	}
	answer := reply{Name: "mls-go", Signer: "imported", Notes: notes}
	for _, dependency := range build.Deps {
		if dependency.Path == library {
			answer.Version = dependency.Version
		}
	}
	if answer.Version == "" {
		return reply{}, fmt.Errorf("the build information has no %s", library)
	}
	for suite := ciphersuite.CipherSuite(1); suite != 0; suite++ {
		if suite.IsSupported() {
			answer.Suites = append(answer.Suites, uint16(suite))
		}
	}
	return answer, nil
}

func makeKeyPackage(r *request) (reply, error) {
	client, err := newClient(r.Suite)
	if err != nil {
		return reply{}, err
	}
	keyPackage, err := client.FreshKeyPackageBytes(context.Background())
	if err != nil {
		return reply{}, err
	}
	message := framing.MLSMessage{KeyPackage: keyPackage}
	return reply{KeyPackage: message.Marshal()}, nil
}

func validate(r *request) (reply, error) {
	_, keyPackage, err := decodeKeyPackage(r.KeyPackage)
	if err != nil {
		return reply{}, err
	}
	if err := keyPackage.Validate(); err != nil {
		return reply{}, err
	}
	return reply{}, keyPackage.Verify(ciphersuite.CipherSuite(r.Suite))
}

// decodeKeyPackage also returns the key package without the MLSMessage's header.
func decodeKeyPackage(encoded []byte) ([]byte, *keypackages.KeyPackage, error) {
	message, err := framing.UnmarshalMLSMessage(encoded)
	if err != nil {
		return nil, nil, err
	}
	if message.KeyPackage == nil {
		return nil, nil, fmt.Errorf("the MLSMessage has the wire format %d, not a key package's", message.WireFormat())
	}
	keyPackage, err := keypackages.UnmarshalKeyPackage(message.KeyPackage)
	return message.KeyPackage, keyPackage, err
}

func (p *peer) add(r *request) (reply, error) {
	encoded, _, err := decodeKeyPackage(r.KeyPackage)
	if err != nil {
		return reply{}, err
	}
	client, err := newClient(r.Suite)
	if err != nil {
		return reply{}, err
	}
	ctx := context.Background()
	id, err := client.CreateGroup(ctx)
	if err != nil {
		return reply{}, err
	}
	_, welcome, err := client.InviteMember(ctx, id, encoded)
	if err != nil {
		return reply{}, err
	}
	m := founder{client, id}
	authenticator, err := m.epochAuthenticator()
	if err != nil {
		return reply{}, err
	}
	return reply{
		Group:              p.keep(m),
		Welcome:            welcome,
		EpochAuthenticator: authenticator,
	}, nil
}

func (p *peer) join(r *request) (reply, error) {
	if len(r.RatchetTree) > 0 {
		return reply{}, unsupported("JoinFromWelcome takes no ratchet tree beside the Welcome")
	}
	_, keyPackage, err := decodeKeyPackage(r.KeyPackage)
	if err != nil {
		return reply{}, err
	}
	suite := ciphersuite.CipherSuite(r.Suite)
	keys, err := privateKeys(suite, r)
	if err != nil {
		return reply{}, err
	}
	message, err := framing.UnmarshalMLSMessage(r.Welcome)
	if err != nil {
		return reply{}, err
	}
	if message.Welcome == nil {
		return reply{}, fmt.Errorf("the MLSMessage has the wire format %d, not a Welcome's", message.WireFormat())
	}
	welcome, err := group.UnmarshalWelcome(message.Welcome)
	if err != nil {
		return reply{}, err
	}
	joined, err := group.JoinFromWelcome(welcome, keyPackage, keys, nil)
	if err != nil {
		return reply{}, err
	}
	m := joiner{group: joined}
	if keys.SignatureKey != nil || keys.Ed25519SignatureKey != nil {
		m.key = keys.GetSignaturePrivateKey()
	}
	return reply{
		Group:              p.keep(m),
		EpochAuthenticator: joined.EpochAuthenticator(),
	}, nil
}

// privateKeys returns the keys of a request to join. The signature key may be
// absent: it is needed for sending, not for joining.
func privateKeys(suite ciphersuite.CipherSuite, r *request) (*keypackages.KeyPackagePrivateKeys, error) {
	curve := suite.Curve()
	if curve == nil {
		return nil, fmt.Errorf("the library has no curve for suite %d", suite)
	}
	var keys keypackages.KeyPackagePrivateKeys
	var err error
	if keys.InitKey, err = curve.NewPrivateKey(r.InitPrivateKey); err != nil {
		return nil, fmt.Errorf("initPrivateKey: %w", err)
	}
	if keys.EncryptionKey, err = curve.NewPrivateKey(r.EncryptionPrivateKey); err != nil {
		return nil, fmt.Errorf("encryptionPrivateKey: %w", err)
	}
	if len(r.SignaturePrivateKey) == 0 {
		return &keys, nil
	}
	switch scheme := suite.SignatureScheme(); scheme {
	case ciphersuite.ED25519:
		if len(r.SignaturePrivateKey) != ed25519.SeedSize {
			return nil, fmt.Errorf("signaturePrivateKey: %d bytes, not %d", len(r.SignaturePrivateKey), ed25519.SeedSize)
		}
		keys.Ed25519SignatureKey = ed25519.NewKeyFromSeed(r.SignaturePrivateKey)
	case ciphersuite.ECDSA_SECP256R1_SHA256:
		keys.SignatureKey, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), r.SignaturePrivateKey)
	case ciphersuite.ECDSA_SECP521R1_SHA512:
		keys.SignatureKey, err = ecdsa.ParseRawPrivateKey(elliptic.P521(), r.SignaturePrivateKey)
	default:
		err = fmt.Errorf("no signature scheme %v", scheme)
	}
	if err != nil {
		return nil, fmt.Errorf("signaturePrivateKey: %w", err)
	}
	return &keys, nil
}

// newClient returns a client that is not a member of a group yet. Its identity has the form that
// core-crypto needs to read its messages.
func newClient(suite uint16) (*mlsgo.Client, error) {
	silent := mlsgo.WithLogger(slog.New(slog.DiscardHandler))
	identity := []byte("00000000-0000-4000-8000-000000000000:1@mls-go.example")
	return mlsgo.NewClient(identity, ciphersuite.CipherSuite(suite), silent)
}

// founder is the member that made its group.
type founder struct {
	client *mlsgo.Client
	id     []byte
}

// commit does not use SelfUpdate, which commits an Update proposal of the
// committer's own.
func (f founder) commit() ([]byte, error) {
	commit, _, err := f.client.CommitPendingProposals(context.Background(), f.id)
	return commit, err
}

func (f founder) process(message []byte) error {
	return f.client.ProcessCommit(context.Background(), f.id, message)
}

func (f founder) epochAuthenticator() ([]byte, error) {
	return f.client.EpochAuthenticator(context.Background(), f.id)
}

func (f founder) send(data []byte) ([]byte, error) {
	return f.client.SendMessage(context.Background(), f.id, data)
}

func (f founder) receive(message []byte) ([]byte, error) {
	received, err := f.client.ReceiveMessage(context.Background(), f.id, message)
	if err != nil {
		return nil, err
	}
	return received.Plaintext, nil
}

// joiner is a member that joined with private keys from elsewhere.
type joiner struct {
	group *group.Group
	key   *ciphersuite.SignaturePrivateKey // nil if none was given
}

func (j joiner) commit() ([]byte, error) {
	if j.key == nil {
		return nil, errors.New("the member has no signature key")
	}
	staged, err := j.group.Commit(j.key, j.key.PublicKey(), nil)
	if err != nil {
		return nil, err
	}
	if err := j.group.MergeCommit(staged); err != nil {
		return nil, err
	}
	return framing.NewMLSMessagePublic(&framing.PublicMessage{
		Content:       staged.AuthenticatedContent().Content,
		Auth:          staged.AuthenticatedContent().Auth,
		MembershipTag: staged.MembershipTag(),
	}).Marshal(), nil
}

func (j joiner) process(message []byte) error {
	decoded, err := framing.UnmarshalMLSMessage(message)
	if err != nil {
		return err
	}
	epoch := j.group.Epoch()
	if private, ok := decoded.AsPrivate(); ok {
		err = j.group.ProcessPrivateMessage(private)
	} else if public, ok := decoded.AsPublic(); ok {
		err = j.group.ProcessPublicMessage(public)
	} else {
		err = fmt.Errorf("the MLSMessage has the wire format %d, not a message's to a group", decoded.WireFormat())
	}
	if err == nil && j.group.Epoch() == epoch {
		err = errors.New("the message is not a commit")
	}
	return err
}

func (j joiner) epochAuthenticator() ([]byte, error) { return j.group.EpochAuthenticator(), nil }

func (j joiner) send(data []byte) ([]byte, error) {
	message, err := j.group.SendMessage(data, j.key)
	if err != nil {
		return nil, err
	}
	return framing.NewMLSMessagePrivate(message).Marshal(), nil
}

func (j joiner) receive(message []byte) ([]byte, error) {
	decoded, err := framing.UnmarshalMLSMessage(message)
	if err != nil {
		return nil, err
	}
	private, ok := decoded.AsPrivate()
	if !ok {
		return nil, fmt.Errorf("the MLSMessage has the wire format %d, not a PrivateMessage's", decoded.WireFormat())
	}
	data, _, _, err := j.group.ReceiveApplicationMessage(private)
	return data, err
}
