//! Hands the versions in Cargo.lock to the program.

use std::fs;

const PACKAGES: [(&str, &str); 3] = [
    ("openmls", "OPENMLS_VERSION"),
    ("openmls_rust_crypto", "RUST_CRYPTO_VERSION"),
    ("openmls_libcrux_crypto", "LIBCRUX_CRYPTO_VERSION"),
];

fn main() {
    println!("cargo:rerun-if-changed=Cargo.lock");
    println!("cargo:rerun-if-changed=build.rs");
    let lock = fs::read_to_string("Cargo.lock").expect("Cargo.lock is beside build.rs");
    for (package, variable) in PACKAGES {
        let version = version(&lock, package)
            .unwrap_or_else(|| panic!("Cargo.lock has no version of {package}"));
        println!("cargo:rustc-env={variable}={version}");
    }
}

/// The version in the [[package]] table with this name.
fn version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.next()?;
    lines
        .next()?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}
