package profile

// profiles are in the order of the table in docs/INTEROP.md.
var profiles = []*Profile{
	{Name: "openmls", Version: "0.9", Basis: Tried, suites: suites(1, 2, 3)},
	{Name: "mls-rs", Version: "0.57.0", Basis: Tried, suites: suites(1, 2, 3, 4, 5, 6, 7)},
	{Name: "ts-mls", Version: "1.6.4", Basis: Tried, suites: suites(1, 2, 3, 4, 5, 6, 7)},
	{Name: "core-crypto", Version: "10.3.0", Basis: Tried, suites: suites(1, 2, 3, 5, 7)},
	{Name: "mls-go", Version: "1.6.0", Basis: Tried, suites: suites(1, 2, 3, 5)},
}
