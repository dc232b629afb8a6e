package main

import (
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func inspectCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Category:  categoryLook,
		Usage:     "show the contents of a key package, with the field names of RFC 9420",
		ArgsUsage: "FILE|-",
		Description: `Reads any key package, as an MLSMessage or bare, raw, in hexadecimal or in
base64. It shows the contents and does not check them: see "hsm-kp verify". Experimental
cipher suites come from the config that --config or HSM_KP_CONFIG names.

Examples:
   hsm-kp inspect keypackage.mls
   curl -s https://example.com/kp | hsm-kp inspect -
   hsm-kp inspect --json keypackage.mls | jq .key_package.leaf_node.credential`,
		Flags: []cli.Flag{jsonFlag},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, "FILE"); err != nil {
				return err
			}
			path, named := configPath(c)
			knowSuites(path, named, u)
			kp, err := readKeyPackage(u, c.Args().First())
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(inspection(kp))
			}
			u.printf("%s, %s\n", kp.Framing, kp.Encoding)
			printKeyPackage(u, kp.KeyPackage)
			return nil
		},
	}
}

// inspectionJSON is the JSON form of an inspected key package.
type inspectionJSON struct {
	Encoding   string                 `json:"encoding"`
	Framing    string                 `json:"framing"`
	Ref        string                 `json:"key_package_ref,omitempty"`
	KeyPackage *keypackage.KeyPackage `json:"key_package"`
}

func inspection(kp *encodedKeyPackage) inspectionJSON {
	out := inspectionJSON{Encoding: kp.Encoding, Framing: kp.Framing, KeyPackage: kp.KeyPackage}
	if ref, err := kp.Ref(); err == nil {
		out.Ref = ref.String()
	}
	return out
}

// printKeyPackage writes kp for a person.
func printKeyPackage(u *ui, kp *keypackage.KeyPackage) {
	if ref, err := kp.Ref(); err == nil {
		u.printf("  key_package_ref  %v\n", ref)
	}
	u.printf("  version          %v\n", kp.Version)
	u.printf("  cipher_suite     %v (0x%04X)\n", kp.CipherSuite, uint16(kp.CipherSuite))
	u.printf("  init_key         %x\n", kp.InitKey)
	u.printf("  leaf_node\n")
	printLeafNode(u, &kp.LeafNode)
	printExtensions(u, "  ", kp.Extensions)
	u.printf("  signature        %x\n", kp.Signature)
}

func printLeafNode(u *ui, leaf *keypackage.LeafNode) {
	u.printf("    encryption_key   %x\n", leaf.EncryptionKey)
	u.printf("    signature_key    %x\n", leaf.SignatureKey)
	u.printf("    credential       %s\n", credentialText(leaf.Credential))
	printCertificates(u, "      ", leaf.Credential)
	c := leaf.Capabilities
	u.printf("    capabilities\n")
	u.printf("      versions         %s\n", join(c.Versions))
	u.printf("      cipher_suites    %s\n", join(c.CipherSuites))
	u.printf("      extensions       %s\n", join(c.Extensions))
	u.printf("      proposals        %s\n", join(c.Proposals))
	u.printf("      credentials      %s\n", join(c.Credentials))
	u.printf("    leaf_node_source %v\n", leaf.Source)
	switch leaf.Source {
	case keypackage.SourceKeyPackage:
		u.printf("    lifetime\n")
		u.printf("      not_before       %s\n", timeText(leaf.Lifetime.NotBefore))
		u.printf("      not_after        %s\n", timeText(leaf.Lifetime.NotAfter))
	case keypackage.SourceCommit:
		u.printf("    parent_hash      %x\n", leaf.ParentHash)
	}
	printExtensions(u, "    ", leaf.Extensions)
	u.printf("    signature        %x\n", leaf.Signature)
}

func printExtensions(u *ui, indent string, extensions []keypackage.Extension) {
	if len(extensions) == 0 {
		u.printf("%-19s%s\n", indent+"extensions", "none")
		return
	}
	u.printf("%sextensions\n", indent)
	for _, e := range extensions {
		u.printf("%s  %v  %x\n", indent, e.Type, e.Data)
	}
}

// credentialText describes a credential in one line. It shows an identity as
// text only if that is printable.
func credentialText(c keypackage.Credential) string {
	switch c.Type {
	case keypackage.CredentialBasic:
		return fmt.Sprintf("%v %s", c.Type, identityText(c.Identity))
	case keypackage.CredentialX509:
		if len(c.Certificates) == 0 {
			return fmt.Sprintf("%v, no certificate yet", c.Type)
		}
		return fmt.Sprintf("%v, %s", c.Type, operator.Plural(len(c.Certificates), "certificate"))
	default:
		return fmt.Sprintf("%v %x", c.Type, c.Raw)
	}
}

func identityText(identity []byte) string {
	quoted := fmt.Sprintf("%q", identity)
	if quoted[1:len(quoted)-1] == string(identity) {
		return quoted
	}
	return hex.EncodeToString(identity)
}

// timeText shows Unix seconds as a number and, if the calendar has it, as a
// date.
func timeText(seconds uint64) string {
	const year9999 = 253402300799
	if seconds > min(year9999, math.MaxInt64) {
		return fmt.Sprintf("%d", seconds)
	}
	return fmt.Sprintf("%d (%s)", seconds, time.Unix(int64(seconds), 0).UTC().Format(time.RFC3339))
}

// join lists values by their names.
func join[T fmt.Stringer](values []T) string {
	if len(values) == 0 {
		return "none"
	}
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = v.String()
	}
	return strings.Join(names, ", ")
}
