//! Where the service is, and who the callers are.

use std::{env, fs, path::PathBuf, sync::Arc};

use hsm_kp_openmls::{Service, Tls};
use openmls::prelude::Ciphersuite;

/// Returns a variable that configures the test.
pub fn variable(name: &str) -> String {
    let name = format!("HSM_KP_TEST_{name}");
    env::var(&name).unwrap_or_else(|_| panic!("{name} is not set: see integrations/README.md"))
}

fn file(name: &str) -> Vec<u8> {
    let path = variable(name);
    fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The service over mutual TLS, as the caller `MEMBER` or `ADDER`.
pub fn over_tls(caller: &str) -> Arc<Service> {
    let tls = Tls {
        ca: &file("CA"),
        certificate: &file(&format!("{caller}_CERTIFICATE")),
        key: &file(&format!("{caller}_KEY")),
    };
    Arc::new(Service::tls(&variable("URL"), &tls).unwrap())
}

/// The service over the Unix socket.
pub fn over_socket() -> Arc<Service> {
    Arc::new(Service::unix(variable("SOCKET")))
}

/// The suites to test.
pub fn suites() -> Vec<Ciphersuite> {
    let suites: Vec<Ciphersuite> = variable("SUITES")
        .split_whitespace()
        .map(|number| Ciphersuite::try_from(number.parse::<u16>().unwrap()).unwrap())
        .collect();
    assert!(!suites.is_empty());
    suites
}

/// The name of the identity for a suite.
pub fn identity(suite: Ciphersuite) -> String {
    format!("alice-{}", u16::from(suite))
}

/// A folder for what members store.
pub fn out() -> PathBuf {
    variable("OUT").into()
}
