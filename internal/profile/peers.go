package profile

// What nearly every implementation refuses.
var (
	lifetimes  = []string{"lifetime-expired", "lifetime-not-yet-valid", "lifetime-inverted"}
	signatures = []string{"signature-invalid", "leaf-signature-invalid"}
)

// profiles is in the order of the table in docs/INTEROP.md.
var profiles = []*Profile{
	{Name: "openmls", Version: "0.9.2", Basis: Tried, suites: suites(1, 2, 3),
		findings: list(lifetimes, signatures, "version-unsupported", "source-not-key-package", "init-key-reused",
			"version-not-listed", "suite-not-listed", "credential-not-listed", "leaf-extension-not-listed", "extension-not-listed",
			"extension-repeated", "leaf-extension-repeated", "extension-misplaced", "credential-unknown"),
		rules: rules(initKeyNoPoint, signatureKeyNoPoint, noGREASEExtension)},
	{Name: "mls-rs", Version: "0.57.0", Basis: Tried, suites: suites(1, 2, 3, 4, 5, 6, 7),
		findings: list(lifetimes, signatures, "version-unsupported", "source-not-key-package", "init-key-reused",
			"default-extension-listed", "default-proposal-listed", "leaf-extension-not-listed", "extension-repeated", "leaf-extension-repeated",
			"credential-unknown", "certificates-malformed", "certificate-key-mismatch", "certificate-expired"),
		rules: rules(initKeyNoPoint, signatureKeyNoPoint, basicListed, noApplicationID)},
	{Name: "ts-mls", Version: "1.6.4", Basis: Tried, suites: suites(1, 2, 3, 4, 5, 6, 7),
		findings: list(lifetimes, signatures, "version-unsupported", "source-not-key-package", "init-key-invalid", "init-key-reused",
			"leaf-extension-not-listed", "credential-unknown"),
		rules: rules(signatureKeyNoPoint)},
	{Name: "core-crypto", Version: "10.3.0", Basis: Tried, suites: suites(1, 2, 3, 5, 7),
		findings: list(lifetimes, signatures, "version-unsupported", "source-not-key-package", "init-key-invalid", "init-key-reused",
			"version-not-listed", "suite-not-listed", "credential-not-listed", "leaf-extension-not-listed", "extension-not-listed",
			"extension-repeated", "leaf-extension-repeated", "credential-unknown"),
		rules: rules(signatureKeyNoPoint, bothCredentials, noLastResort, x509NeedsAnchors)},
	{Name: "mls-go", Version: "1.6.0", Basis: Tried, suites: suites(1, 2, 3, 5),
		findings: list(lifetimes, []string{"signature-invalid"}, "version-unsupported", "source-not-key-package", "init-key-invalid", "init-key-reused",
			"signature-key-invalid", "version-not-listed", "suite-not-listed", "leaf-extension-not-listed", "identity-empty", "credential-unknown"),
		rules: rules(applicationIDListed, noX509)},
	{Name: "bcmls", Version: "1.84", Basis: Tried, suites: suites(1, 2, 3, 4, 5, 6, 7),
		findings: list(lifetimes, signatures, "version-unsupported", "source-not-key-package", "init-key-reused",
			"leaf-extension-not-listed", "credential-unknown"),
		rules: rules(initKeyNoPoint, signatureKeyNoPoint, applicationIDListed, knownExtensions)},
	{Name: "mlspp", Version: "of 2025", Basis: Seen, suites: suites(1, 2, 3, 4, 5, 6, 7),
		findings: list(lifetimes, signatures, "init-key-reused", "leaf-extension-not-listed")},
	{Name: "go-mls", Version: "of 2025", Basis: Read, suites: suites(1, 2, 3, 7),
		findings: list(lifetimes, signatures, "version-unsupported", "source-not-key-package", "init-key-reused", "leaf-extension-not-listed"),
		rules:    rules(applicationIDListed, shortLifetime)},
}

// list concatenates ids of findings.
func list(first, second []string, more ...string) []string {
	return append(append(append([]string(nil), first...), second...), more...)
}

func rules(r ...rule) []rule { return r }
