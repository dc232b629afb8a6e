//! The client of `hsmkp.v1.KeyPackageService`: Connect's JSON over HTTP POST.

use std::{fmt, thread, time::Duration};

use serde::{de::DeserializeOwned, Serialize};
use ureq::{
    config::{Config, ConfigBuilder},
    tls::{parse_pem, Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig},
    typestate::AgentScope,
    Agent,
};
use zeroize::Zeroizing;

use crate::{
    api::{
        ClaimRequest, ClaimResponse, DecryptRequest, DecryptResponse, Decrypted, EndRequest,
        EndResponse, GetRequest, GetResponse, KeyPackageRecord, PreSharedKey, SignRequest,
        SignResponse, State,
    },
    Error, Refusal,
};

/// How long one request may take by default; see [`Service::timeout`].
const TIMEOUT: Duration = Duration::from_secs(30);

/// The length of the longest answer that is read. A thousand key packages are shorter.
const ANSWER: u64 = 16 << 20;

/// How many idle connections are kept. It should be the number of threads that send requests at
/// once: each thread beyond it would need a new connection, with a handshake, for each request.
const CONNECTIONS: usize = 64;

/// How long to wait before each retry.
const WAITS: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];

/// The identity of the service over TCP, and of the caller, in PEM.
pub struct Tls<'a> {
    /// The CAs that may have issued the service's certificate. Those of the system are not used.
    pub ca: &'a [u8],
    /// The caller's certificate, with its chain up to the service's client CA.
    pub certificate: &'a [u8],
    /// The private key of the caller's certificate.
    pub key: &'a [u8],
}

impl fmt::Debug for Tls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(REDACTED)")
    }
}

/// A service, and how to reach it. Connections are kept for later requests; any number of threads
/// may use one Service at once.
pub struct Service {
    agent: Agent,
    base: String,
    timeout: Duration,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("base", &self.base).finish()
    }
}

impl Service {
    /// A service over mutual TLS: `https://HOST:PORT`.
    pub fn tls(url: &str, tls: &Tls) -> Result<Self, Error> {
        if !url.starts_with("https://") {
            return Err(Error::Config("the URL does not begin with https://".into()));
        }
        let client = ClientCert::new_with_certs(
            &certificates(tls.certificate, "certificate")?,
            PrivateKey::from_pem(tls.key)
                .map_err(|_| Error::Config("the key is not a private key in PEM".into()))?,
        );
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&certificates(tls.ca, "CA")?))
            .client_cert(Some(client))
            .build();
        Ok(Service {
            agent: Agent::new_with_config(config().tls_config(tls).https_only(true).build()),
            base: url.trim_end_matches('/').to_owned(),
            timeout: TIMEOUT,
        })
    }

    /// A service over a Unix socket: the caller is the user that the kernel reports.
    #[cfg(unix)]
    pub fn unix(path: impl Into<std::path::PathBuf>) -> Self {
        use crate::transport::{NoResolver, UnixConnector};
        let agent = Agent::with_parts(config().build(), UnixConnector(path.into()), NoResolver);
        Service {
            agent,
            base: "http://hsm-kp".to_owned(),
            timeout: TIMEOUT,
        }
    }

    /// Sets how long one request may take; the default is 30 seconds.
    pub fn timeout(self, timeout: Duration) -> Self {
        Service { timeout, ..self }
    }

    /// Claims key packages of an identity with which to add its client to groups: at least one, and
    /// fewer than `count` if there are no more. Nobody else gets them. Fails with
    /// [`NoneLeft`](crate::Reason::NoneLeft) if there are none.
    pub fn claim(&self, identity: &str, count: u32) -> Result<Vec<KeyPackageRecord>, Error> {
        let answer: ClaimResponse = self.post("Claim", &ClaimRequest { identity, count })?;
        Ok(answer.key_packages.into_iter().map(Into::into).collect())
    }

    /// Returns one key package.
    pub fn get(&self, reference: &[u8]) -> Result<KeyPackageRecord, Error> {
        let request = GetRequest {
            r#ref: reference.into(),
        };
        let answer: GetResponse = self.post_until_answered("Get", &request)?;
        Ok(answer.key_package.into())
    }

    /// Signs as an identity (RFC 9420, Section 5.1.2). The service parses the content, and signs
    /// only what a member of MLS would.
    pub fn sign_with_label(
        &self,
        identity: &str,
        label: &str,
        content: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let request = SignRequest {
            identity,
            label,
            content: content.into(),
        };
        let answer: SignResponse = self.post_until_answered("SignWithLabel", &request)?;
        Ok(answer.signature.0.to_vec())
    }

    /// Decrypts with a private key of a key package (RFC 9420, Section 5.1.3): the init key for the
    /// label Welcome, the leaf's key for UpdatePathNode. The first reserves the key package; `psks`
    /// are the external pre-shared keys that the group uses.
    pub fn decrypt_with_label(
        &self,
        reference: &[u8],
        label: &str,
        context: &[u8],
        kem_output: &[u8],
        ciphertext: &[u8],
        psks: &[PreSharedKey],
    ) -> Result<Decrypted, Error> {
        let request = DecryptRequest {
            r#ref: reference.into(),
            label,
            context: context.into(),
            kem_output: kem_output.into(),
            ciphertext: ciphertext.into(),
            psks,
        };
        let answer: DecryptResponse = self.post_until_answered("DecryptWithLabel", &request)?;
        Ok(Decrypted {
            plaintext: answer.plaintext.0,
            welcome_digest: answer.welcome_digest.0.to_vec(),
            reserved_until: answer.reserved_until,
        })
    }

    /// Confirms that the member exists: the private init key is erased. Returns the key package's
    /// state: consumed, or unchanged if it is of last resort.
    pub fn confirm_welcome(&self, reference: &[u8], welcome_digest: &[u8]) -> Result<State, Error> {
        self.end("ConfirmWelcome", reference, welcome_digest)
    }

    /// Ends the reservation of a key package whose Welcome is not used. Returns its state.
    pub fn release_welcome(&self, reference: &[u8], welcome_digest: &[u8]) -> Result<State, Error> {
        self.end("ReleaseWelcome", reference, welcome_digest)
    }

    fn end(&self, method: &str, reference: &[u8], digest: &[u8]) -> Result<State, Error> {
        let request = EndRequest {
            r#ref: reference.into(),
            welcome_digest: digest.into(),
        };
        let answer: EndResponse = self.post(method, &request)?;
        Ok(answer.state)
    }

    /// Sends a request that may safely be repeated, and retries it until it is answered.
    fn post_until_answered<R: DeserializeOwned>(
        &self,
        method: &str,
        request: &impl Serialize,
    ) -> Result<R, Error> {
        for wait in WAITS {
            match self.post(method, request) {
                Err(e) if e.is_passing() && !matches!(e, Error::TimedOut) => thread::sleep(wait),
                other => return other,
            }
        }
        self.post(method, request)
    }

    fn post<R: DeserializeOwned>(
        &self,
        method: &str,
        request: &impl Serialize,
    ) -> Result<R, Error> {
        let body = Zeroizing::new(serde_json::to_vec(request).expect("strings and numbers"));
        let url = format!("{}/hsmkp.v1.KeyPackageService/{method}", self.base);
        let mut answer = self
            .agent
            .post(&url)
            .config()
            .timeout_global(Some(self.timeout))
            .build()
            .content_type("application/json")
            .send(body.as_slice())
            .map_err(away)?;
        let body = answer.body_mut().with_config().limit(ANSWER).read_to_vec();
        let body = Zeroizing::new(body.map_err(away)?);
        if answer.status().is_success() {
            // The error of serde_json may contain a part of the answer.
            return serde_json::from_slice(&body)
                .map_err(|_| Error::Answer(format!("JSON that is not a {method}Response")));
        }
        Err(Refusal::parse(&body).map_or_else(
            || Error::Answer(format!("HTTP status {}", answer.status().as_u16())),
            Error::Refused,
        ))
    }
}

/// The common config of both ways. It uses no proxy and follows no redirect.
fn config() -> ConfigBuilder<AgentScope> {
    Config::builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .max_idle_connections(CONNECTIONS)
        .max_idle_connections_per_host(CONNECTIONS)
        .user_agent(concat!("hsm-kp-openmls/", env!("CARGO_PKG_VERSION")))
}

fn away(e: ureq::Error) -> Error {
    match e {
        ureq::Error::Timeout(_) => Error::TimedOut,
        other => Error::Away(Box::new(other)),
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<Certificate<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(e) => Some(Err(e)),
        })
        .collect();
    match certificates {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err(Error::Config(format!(
            "the {what} is not a certificate in PEM"
        ))),
    }
}
