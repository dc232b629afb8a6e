//go:build !unix

package engine

// whyNotLoaded says why the library at path does not load.
func whyNotLoaded(string) string { return "not a PKCS#11 library for this system" }
