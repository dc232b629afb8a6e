//! Hands the versions that Cargo.lock pins to the program, which reports them.

use std::{env, fs, path::Path};

fn main() {
    let lock = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()).join("Cargo.lock");
    println!("cargo:rerun-if-changed={}", lock.display());

    let lock = fs::read_to_string(lock).expect("Cargo.lock");
    for (name, variable) in [
        ("mls-rs", "MLS_RS_VERSION"),
        ("mls-rs-crypto-openssl", "PROVIDER_VERSION"),
    ] {
        let version = version(&lock, name).unwrap_or_else(|| panic!("{name} is not in Cargo.lock"));
        println!("cargo:rustc-env={variable}={version}");
    }
}

/// The version of the package `name`: in a lock file it is on the line after it.
fn version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = lock.lines();
    lines.find(|line| *line == format!("name = \"{name}\""))?;
    lines
        .next()?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}
