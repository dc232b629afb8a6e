// Package act lists by name all acts that need authority. The service grants acts, the audit trail
// records refused acts, and an entry of the trail says what an act has done.
package act

import "github.com/hsm-kp/hsm-kp/internal/audit"

// Act is something that needs authority. Its value is its name: lower-case words joined by
// underscores. Names are part of the config file and of audit trails, and never change.
type Act string

// The acts.
const (
	CreateIdentity     Act = "create_identity"
	RequestCertificate Act = "request_certificate"
	ImportCertificate  Act = "import_certificate"
	RotateIdentity     Act = "rotate_identity"
	RetireIdentity     Act = "retire_identity"
	DestroyKey         Act = "destroy_signature_key"
	Provision          Act = "provision"
	ConfirmHandover    Act = "confirm_handover"

	Generate  Act = "generate"
	List      Act = "list"
	Get       Act = "get"
	Claim     Act = "claim"
	Export    Act = "export"
	Publish   Act = "publish"
	Replenish Act = "replenish"
	Unwrap    Act = "unwrap"

	OpenWelcome      Act = "open_welcome"
	ConfirmWelcome   Act = "confirm_welcome"
	ReleaseWelcome   Act = "release_welcome"
	EraseLeaf        Act = "erase_leaf"
	SignWithLabel    Act = "sign_with_label"
	DecryptWithLabel Act = "decrypt_with_label"

	CreateWrappingKey  Act = "create_wrapping_key"
	RotateWrappingKey  Act = "rotate_wrapping_key"
	Rewrap             Act = "rewrap"
	DestroyWrappingKey Act = "destroy_wrapping_key"
	Sweep              Act = "sweep"
	SignCheckpoint     Act = "sign_checkpoint"
	CreateAuditKey     Act = "create_audit_key"
	MigrateStore       Act = "migrate_store"

	Metrics Act = "metrics"
	Status  Act = "status"
)

// Info describes an act.
type Info struct {
	Act Act
	// Entries are the entries of the trail that the act may make. An act without entries only
	// reads.
	Entries []audit.Act
	// Granted marks acts of the network service, which a rule can grant.
	Granted bool
	// Everybody marks acts that show all identities: a rule that grants one must be for *.
	Everybody bool
}

// All lists all acts, in the order of the lives of keys.
var All = []Info{
	{Act: CreateIdentity, Entries: []audit.Act{audit.Created}},
	{Act: RequestCertificate, Entries: []audit.Act{audit.Created, audit.Requested}},
	{Act: ImportCertificate, Entries: []audit.Act{audit.Imported}},
	{Act: RotateIdentity, Entries: []audit.Act{audit.Created, audit.Generated, audit.Rotated, audit.Retired}},
	{Act: RetireIdentity, Entries: []audit.Act{audit.Retired}},
	{Act: DestroyKey, Entries: []audit.Act{audit.Destroyed}},
	{Act: Provision, Entries: []audit.Act{audit.Created, audit.Requested, audit.Imported, audit.Generated, audit.Exported, audit.HandedOver}},
	{Act: ConfirmHandover, Entries: []audit.Act{audit.Confirmed}},

	{Act: Generate, Entries: []audit.Act{audit.Generated, audit.Exported, audit.Retired}, Granted: true},
	{Act: List, Granted: true},
	{Act: Get, Granted: true},
	{Act: Claim, Entries: []audit.Act{audit.Claimed}, Granted: true},
	{Act: Export, Entries: []audit.Act{audit.Exported}},
	{Act: Publish, Entries: []audit.Act{audit.Exported}, Granted: true},
	{Act: Replenish, Entries: []audit.Act{audit.Generated, audit.Exported, audit.Retired}},
	{Act: Unwrap, Entries: []audit.Act{audit.Unwrapped}},

	{Act: OpenWelcome, Entries: []audit.Act{audit.Opened, audit.Reserved, audit.Unwrapped}, Granted: true},
	{Act: ConfirmWelcome, Entries: []audit.Act{audit.Consumed}, Granted: true},
	{Act: ReleaseWelcome, Entries: []audit.Act{audit.Released}, Granted: true},
	{Act: EraseLeaf, Entries: []audit.Act{audit.LeafErased}},
	{Act: SignWithLabel, Entries: []audit.Act{audit.Signed}, Granted: true},
	{Act: DecryptWithLabel, Entries: []audit.Act{audit.Decrypted, audit.Opened, audit.Reserved}, Granted: true},

	{Act: CreateWrappingKey, Entries: []audit.Act{audit.Created}},
	{Act: RotateWrappingKey, Entries: []audit.Act{audit.Created, audit.Rotated}},
	{Act: Rewrap, Entries: []audit.Act{audit.Rewrapped}},
	{Act: DestroyWrappingKey, Entries: []audit.Act{audit.Condemned, audit.Destroyed, audit.Erased}},
	{Act: Sweep, Entries: []audit.Act{audit.Expired, audit.Erased, audit.Released, audit.Retired, audit.Repaired, audit.Destroyed}},
	{Act: SignCheckpoint, Entries: []audit.Act{audit.Created}},
	{Act: CreateAuditKey, Entries: []audit.Act{audit.Created, audit.Rotated}},
	{Act: MigrateStore},

	{Act: Metrics, Granted: true, Everybody: true},
	{Act: Status, Granted: true, Everybody: true},
}

// Lookup returns the Info of the act called name.
func Lookup(name Act) (Info, bool) {
	for _, i := range All {
		if i.Act == name {
			return i, true
		}
	}
	return Info{}, false
}

// Granted returns the names of the acts that a rule can grant.
func Granted() []string {
	var names []string
	for _, i := range All {
		if i.Granted {
			names = append(names, string(i.Act))
		}
	}
	return names
}

// IsGranted reports whether a rule can grant the act called name.
func IsGranted(name string) bool {
	i, ok := Lookup(Act(name))
	return ok && i.Granted
}
