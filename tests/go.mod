module github.com/hsm-kp/hsm-kp/tests

go 1.26.0

require (
	github.com/hsm-kp/hsm-kp v0.0.0
	github.com/mattn/go-sqlite3 v1.14.53
	github.com/rogpeppe/go-internal v1.16.0
)

require (
	github.com/ThalesGroup/crypto11 v1.5.0 // indirect
	github.com/cloudflare/circl v1.6.5 // indirect
	github.com/miekg/pkcs11 v1.1.2 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/thales-e-security/pool v0.0.2 // indirect
	github.com/thomas-vilte/mls-go v1.6.0
	golang.org/x/crypto v0.54.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/term v0.47.0 // indirect
	golang.org/x/tools v0.26.0 // indirect
)

replace github.com/hsm-kp/hsm-kp => ../
