// Package interop passes the key packages of hsm-kp to the MLS libraries that can be installed here, and
// judges by what they do: each validates them, adds them to a group, and joins with private keys that came
// back from the token.
package interop

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/internal/profile"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// TestInterop runs everything, and writes docs/INTEROP.md if every peer ran.
func TestInterop(t *testing.T) {
	ours := newMembers(t)
	r := newResults()
	for _, k := range kits {
		t.Run("start "+k.folder, func(s *testing.T) {
			command := k.command(s)
			p := start(t, command)
			p.sign = ours.sign
			r.peers = append(r.peers, p)
			s.Logf("%s %s serves %v, signer %s", p.hello.Name, p.hello.Version, p.hello.Suites, p.hello.Signer)
		})
	}
	for _, suite := range ciphersuite.All() {
		t.Run(fmt.Sprintf("suite %d", uint16(suite.ID)), func(t *testing.T) {
			r.groups(t, ours, uint16(suite.ID))
			r.ownKeyPackages(t, uint16(suite.ID))
		})
	}
	t.Run("wrong encryption key", func(t *testing.T) { r.wrongEncryptionKey(t, ours) })
	t.Run("variants", r.variants)
	t.Run("faults", r.allFaultsWereSeen)
	if t.Failed() || len(r.peers) < len(kits) {
		return
	}
	r.write(t)
}

// serving returns the running peers that have the suite.
func (r *results) serving(suite uint16) []*peer {
	return slices.DeleteFunc(slices.Clone(r.peers), func(p *peer) bool { return !understands(p, suite) })
}

// ourselves is the name of hsm-kp in the column of those who open a Welcome.
const ourselves = "hsm-kp"

// groups lets every peer add our key packages and join with them, and lets hsm-kp open the Welcome itself.
func (r *results) groups(t *testing.T, ours *members, suite uint16) {
	for _, founder := range r.serving(suite) {
		t.Run(founder.hello.Name+" adds, hsm-kp opens", func(t *testing.T) {
			r.note(t, cell{suite, founder.hello.Name, ourselves}, ours.open(founder, suite))
		})
		for _, joiner := range r.serving(suite) {
			t.Run(fmt.Sprintf("%s adds, %s joins", founder.hello.Name, joiner.hello.Name), func(t *testing.T) {
				err := exchange(founder, joiner, suite, ours.generate(suite, joiner.external()))
				r.note(t, cell{suite, founder.hello.Name, joiner.hello.Name}, err)
			})
		}
	}
}

// exchange lets the founder add our key package to a new group, lets the joiner join with its private keys
// and follow the founder to the next epoch, and lets each send the other a message.
func exchange(founder, joiner *peer, suite uint16, kp keyPackage) error {
	if _, err := founder.call(request{Op: "validate", Suite: suite, KeyPackage: kp.message}); err != nil && !errors.Is(err, errUnsupported) {
		return fmt.Errorf("validate: %w", err)
	}
	added, err := founder.call(request{Op: "add", Suite: suite, KeyPackage: kp.message})
	if err != nil {
		return fmt.Errorf("add: %w", err)
	}
	joined, err := joiner.call(request{
		Op: "join", Suite: suite, KeyPackage: kp.message,
		InitPrivateKey: kp.init, EncryptionPrivateKey: kp.encryption, SignaturePrivateKey: kp.signature,
		Welcome: added.Welcome, RatchetTree: added.RatchetTree,
	})
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := sameEpoch(joined, added); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	// The commit that adds encrypts nothing to the key of the joiner's leaf, but this one does: see
	// peers/README.md.
	public := joiner.hello.Commits == "public"
	committed, err := founder.call(request{Op: "commit", Suite: suite, Group: added.Group, Public: public})
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	processed, err := joiner.call(request{Op: "process", Suite: suite, Group: joined.Group, Message: committed.Message})
	if err != nil {
		return fmt.Errorf("process: %w", err)
	}
	if err := sameEpoch(processed, committed); err != nil {
		return fmt.Errorf("process: %w", err)
	}
	return errors.Join(
		send(founder, added.Group, joiner, joined.Group, suite),
		send(joiner, joined.Group, founder, added.Group, suite),
	)
}

// wrongEncryptionKey lets every peer join with the private encryption key of another key package.
// Everything else is right, so that only the commit after the join can reveal it.
func (r *results) wrongEncryptionKey(t *testing.T, ours *members) {
	const suite = uint16(ciphersuite.MLS_128_DHKEMP256_AES128GCM_SHA256_P256)
	i := slices.IndexFunc(r.peers, func(p *peer) bool { return p.hello.Name == "mls-rs" })
	if i < 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("mls-rs, which makes the groups, does not run, and CI must have it")
		}
		t.Skip("mls-rs, which makes the groups, does not run")
	}
	for _, joiner := range r.serving(suite) {
		t.Run(joiner.hello.Name, func(t *testing.T) {
			kp := ours.generate(suite, joiner.external())
			kp.encryption = ours.generate(suite, joiner.external()).encryption
			err := exchange(r.peers[i], joiner, suite, kp)
			if err == nil || !strings.HasPrefix(err.Error(), "process: ") {
				t.Errorf("exchange() err = %v, want one of process", err)
			}
			t.Log(err)
		})
	}
}

// sameEpoch compares what the members of a group report about their epoch. For a library that does not
// report its epoch authenticator, the following messages show that they agree.
func sameEpoch(member, founder reply) error {
	shown := len(member.EpochAuthenticator) > 0 && len(founder.EpochAuthenticator) > 0
	if shown && !bytes.Equal(member.EpochAuthenticator, founder.EpochAuthenticator) {
		return fmt.Errorf("epoch authenticator %x, of the group it is %x", member.EpochAuthenticator, founder.EpochAuthenticator)
	}
	return nil
}

func send(from *peer, fromGroup string, to *peer, toGroup string, suite uint16) error {
	data := []byte("a message of " + from.hello.Name)
	sent, err := from.call(request{Op: "send", Suite: suite, Group: fromGroup, Data: data})
	if err != nil {
		return fmt.Errorf("%s sends: %w", from.hello.Name, err)
	}
	got, err := to.call(request{Op: "receive", Suite: suite, Group: toGroup, Message: sent.Message})
	if err != nil {
		return fmt.Errorf("%s receives from %s: %w", to.hello.Name, from.hello.Name, err)
	}
	if !bytes.Equal(got.Data, data) {
		return fmt.Errorf("%s receives %q, %s sent %q", to.hello.Name, got.Data, from.hello.Name, data)
	}
	return nil
}

// ownKeyPackages checks the key packages that the peers make with our validator and our encoder.
func (r *results) ownKeyPackages(t *testing.T, suite uint16) {
	for _, p := range r.serving(suite) {
		t.Run(p.hello.Name+" makes", func(t *testing.T) {
			made, err := p.call(request{Op: "keyPackage", Suite: suite})
			if err != nil {
				t.Fatal(err)
			}
			message, err := keypackage.ParseMessage(made.KeyPackage)
			if err != nil || message.KeyPackage == nil {
				t.Fatalf("ParseMessage() = %v, %v, want a key package", message, err)
			}
			if again := message.KeyPackage.Message(); !bytes.Equal(again, made.KeyPackage) {
				t.Errorf("Message() = %x, want %x", again, made.KeyPackage)
			}
			report := keypackage.Validate(message.KeyPackage, keypackage.Policy{Now: uint64(time.Now().Unix())})
			r.own[cell{suite, p.hello.Name, ""}] = report.Findings
			for _, f := range report.Findings {
				if f.Severity == keypackage.Error {
					r.note(t, cell{suite, p.hello.Name, ""}, fmt.Errorf("our validator: %v", f))
				}
			}
		})
	}
}

// variants presents key packages with one thing changed to every peer, and compares the profiles with what
// the peers do.
func (r *results) variants(t *testing.T) {
	signer := certificatetest.NewKey(t)
	for _, v := range variants(t, signer) {
		message := v.make(t, signer)
		r.variantNames = append(r.variantNames, v.name)
		var findings []keypackage.Finding
		parsed, parseErr := keypackage.ParseMessage(message)
		if parseErr == nil {
			findings = keypackage.Validate(parsed.KeyPackage, keypackage.Policy{Now: uint64(time.Now().Unix())}).Findings
		}
		r.findings[v.name] = verdict(findings, parseErr)
		for _, p := range r.peers {
			t.Run(v.name+"/"+p.hello.Name, func(t *testing.T) {
				_, err := p.call(request{Op: "add", Suite: uint16(variantSuite), KeyPackage: message})
				r.refused[[2]string{v.name, p.hello.Name}] = err
				if parseErr != nil {
					return // our decoder refuses it, so there is nothing to compare the profile with
				}
				known, ok := profile.Lookup(p.hello.Name)
				if !ok {
					t.Fatalf("there is no profile for %s", p.hello.Name)
				}
				refusals := known.Refusals(parsed.KeyPackage, findings)
				switch {
				case err == nil && len(refusals) > 0:
					t.Errorf("%s adds it, the profile says %v", p.hello.Name, refusals)
				case err != nil && len(refusals) == 0:
					t.Errorf("%s refuses it, the profile does not: %v", p.hello.Name, err)
				}
			})
		}
	}
}
