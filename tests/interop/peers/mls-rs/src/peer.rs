//! What the peer does, through the library's public API.

use std::collections::HashMap;

use mls_rs::{
    client_builder::MlsConfig,
    crypto::SignatureSecretKey,
    error::MlsError,
    external_client::ExternalClient,
    group::{ExportedTree, ReceivedMessage},
    identity::{basic::BasicCredential, SigningIdentity},
    mls_rs_codec::MlsEncode,
    storage_provider::{in_memory::InMemoryKeyPackageStorage, KeyPackageData},
    time::MlsTime,
    CipherSuite, CipherSuiteProvider, Client, CryptoProvider, ExtensionList, Group, MlsMessage,
};
use mls_rs_crypto_openssl::openssl;
use serde_json::{json, Value};

use crate::{crypto, identity};

/// Why a request failed.
pub enum Failure {
    /// The library cannot do it.
    Unsupported(String),
    /// The library refused it, or the request is malformed.
    Refused(String),
}

impl From<MlsError> for Failure {
    fn from(e: MlsError) -> Self {
        Self::Refused(text(&e))
    }
}

/// The library's text, and what it leaves out: the type that it is about.
fn text(e: &MlsError) -> String {
    let number = match e {
        MlsError::RequiredExtensionNotFound(t) | MlsError::ExtensionNotInCapabilities(t) => **t,
        MlsError::RequiredProposalNotFound(t) => **t,
        MlsError::RequiredCredentialNotFound(t) => **t,
        _ => return e.to_string(),
    };
    format!("{e}: {number:#06x}")
}

type Reply = Result<Value, Failure>;

/// A group of which the peer is a member. The library's type depends on the client's configuration; this
/// one does not.
trait Member {
    fn epoch_authenticator(&self) -> Result<String, MlsError>;
    fn commit(&mut self) -> Result<Vec<u8>, MlsError>;
    fn send(&mut self, data: &[u8]) -> Result<Vec<u8>, MlsError>;
    fn receive(&mut self, message: &[u8]) -> Result<ReceivedMessage, MlsError>;
}

impl<C: MlsConfig> Member for Group<C> {
    fn epoch_authenticator(&self) -> Result<String, MlsError> {
        Ok(hex::encode(Group::epoch_authenticator(self)?.as_bytes()))
    }

    fn commit(&mut self) -> Result<Vec<u8>, MlsError> {
        // By the library's rules, a commit without proposals has a path.
        let commit = self.commit_builder().build()?;
        self.apply_pending_commit()?;
        commit.commit_message.to_bytes()
    }

    fn send(&mut self, data: &[u8]) -> Result<Vec<u8>, MlsError> {
        self.encrypt_application_message(data, Vec::new())?
            .to_bytes()
    }

    fn receive(&mut self, message: &[u8]) -> Result<ReceivedMessage, MlsError> {
        self.process_incoming_message(MlsMessage::from_bytes(message)?)
    }
}

#[derive(Default)]
pub struct Peer {
    crypto: crypto::Provider,
    groups: HashMap<String, Box<dyn Member>>,
}

impl Peer {
    pub fn handle(&mut self, request: &Value) -> Reply {
        match string(request, "op")? {
            "hello" => Ok(self.hello()),
            "keyPackage" => self.key_package(request),
            "validate" => self.validate(request),
            "add" => self.add(request),
            "join" => self.join(request),
            "commit" => self.commit(request),
            "process" => self.process(request),
            "send" => self.send(request),
            "receive" => self.receive(request),
            op => Err(Failure::Unsupported(format!("no operation {op:?}"))),
        }
    }

    fn hello(&self) -> Value {
        let suites = self.crypto.supported_cipher_suites();
        let suites: Vec<u16> = suites.into_iter().map(u16::from).collect();
        json!({
            "name": "mls-rs",
            "version": env!("MLS_RS_VERSION"),
            "suites": suites,
            "signer": "external",
            "notes": [
                format!(
                    "The crypto provider is mls-rs-crypto-openssl {} with the system's OpenSSL.",
                    env!("PROVIDER_VERSION"),
                ),
                "validate is that of the library's external client, which the crate's feature \
                 external_client offers.",
                "X.509 credentials: the last certificate of a chain is used as the trust anchor, \
                 which the library leaves to the application.",
            ],
        })
    }

    fn key_package(&self, request: &Value) -> Reply {
        let suite = self.suite(request)?;
        let (identity, signer) = self.new_identity(&suite)?;
        let message = self
            .client(identity, signer, suite.cipher_suite(), Default::default())
            .generate_key_package_message(ExtensionList::new(), ExtensionList::new(), None)?;
        Ok(json!({ "keyPackage": hex::encode(message.to_bytes()?) }))
    }

    fn validate(&self, request: &Value) -> Reply {
        self.suite(request)?;
        let message = MlsMessage::from_bytes(&bytes(request, "keyPackage")?)?;
        // The library takes the suite from the key package.
        ExternalClient::builder()
            .crypto_provider(self.crypto.clone())
            .identity_provider(identity::Provider::new())
            .build()
            .validate_key_package(message, Some(MlsTime::now()))?;
        Ok(json!({}))
    }

    fn add(&mut self, request: &Value) -> Reply {
        let suite = self.suite(request)?;
        let message = MlsMessage::from_bytes(&bytes(request, "keyPackage")?)?;

        let (identity, signer) = self.new_identity(&suite)?;
        let mut group = self
            .client(identity, signer, suite.cipher_suite(), Default::default())
            .create_group(ExtensionList::new(), ExtensionList::new(), None)?;
        let commit = group.commit_builder().add_member(message)?.build()?;
        group.apply_pending_commit()?;

        let [welcome] = commit.welcome_messages() else {
            let n = commit.welcome_messages().len();
            return Err(Failure::Refused(format!("{n} Welcomes instead of one")));
        };
        let mut reply = json!({
            "welcome": hex::encode(welcome.to_bytes()?),
            "epochAuthenticator": Member::epoch_authenticator(&group)?,
        });
        // By the library's default, the Welcome carries it.
        if let Some(tree) = commit.ratchet_tree() {
            reply["ratchetTree"] = hex::encode(tree.to_bytes()?).into();
        }
        reply["group"] = self.keep(group).into();
        Ok(reply)
    }

    fn join(&mut self, request: &Value) -> Reply {
        let suite = self.suite(request)?;
        let message = MlsMessage::from_bytes(&bytes(request, "keyPackage")?)?;
        let reference = message
            .key_package_reference(&suite)?
            .ok_or(MlsError::UnexpectedMessageType)?;
        let key_package = message
            .into_key_package()
            .ok_or(MlsError::UnexpectedMessageType)?;

        let storage = InMemoryKeyPackageStorage::new();
        storage.insert(
            reference.to_vec(),
            KeyPackageData::new(
                key_package.mls_encode_to_vec().map_err(MlsError::from)?,
                bytes(request, "initPrivateKey")?.into(),
                bytes(request, "encryptionPrivateKey")?.into(),
                key_package.expiration()?.seconds_since_epoch(),
            ),
        );

        let welcome = MlsMessage::from_bytes(&bytes(request, "welcome")?)?;
        let tree = match request.get("ratchetTree") {
            Some(_) => Some(ExportedTree::from_bytes(&bytes(request, "ratchetTree")?)?),
            None => None,
        };
        let (group, _) = self
            .client(
                key_package.signing_identity().clone(),
                crypto::external_signer(),
                suite.cipher_suite(),
                storage,
            )
            .join_group(tree, &welcome, Some(MlsTime::now()))?;

        Ok(json!({
            "epochAuthenticator": Member::epoch_authenticator(&group)?,
            "group": self.keep(group),
        }))
    }

    fn commit(&mut self, request: &Value) -> Reply {
        let member = self.member(request)?;
        Ok(json!({
            "message": hex::encode(member.commit()?),
            "epochAuthenticator": member.epoch_authenticator()?,
        }))
    }

    fn process(&mut self, request: &Value) -> Reply {
        let message = bytes(request, "message")?;
        let member = self.member(request)?;
        match member.receive(&message)? {
            ReceivedMessage::Commit(_) => {
                Ok(json!({ "epochAuthenticator": member.epoch_authenticator()? }))
            }
            other => Err(Failure::Refused(format!("not a commit: {other:?}"))),
        }
    }

    fn send(&mut self, request: &Value) -> Reply {
        let data = bytes(request, "data")?;
        let message = self.member(request)?.send(&data)?;
        Ok(json!({ "message": hex::encode(message) }))
    }

    fn receive(&mut self, request: &Value) -> Reply {
        let message = bytes(request, "message")?;
        match self.member(request)?.receive(&message)? {
            ReceivedMessage::ApplicationMessage(message) => {
                Ok(json!({ "data": hex::encode(message.data()) }))
            }
            other => Err(Failure::Refused(format!(
                "not an application message: {other:?}"
            ))),
        }
    }

    fn client(
        &self,
        identity: SigningIdentity,
        signer: SignatureSecretKey,
        suite: CipherSuite,
        key_packages: InMemoryKeyPackageStorage,
    ) -> Client<impl MlsConfig> {
        Client::builder()
            .crypto_provider(self.crypto.clone())
            .identity_provider(identity::Provider::new())
            .key_package_repo(key_packages)
            .signing_identity(identity, signer, suite)
            .build()
    }

    fn new_identity(
        &self,
        suite: &crypto::Suite,
    ) -> Result<(SigningIdentity, SignatureSecretKey), Failure> {
        let provider = |e: crypto::Error| Failure::Refused(e.to_string());
        let (secret, public) = suite.signature_key_generate().map_err(provider)?;
        // The library refuses a second member with the same identity, and core-crypto cannot read messages
        // of a member whose identity has another form.
        let r = suite.random_bytes_vec(16).map_err(provider)?;
        let (a, b, c) = (hex::encode(&r[..4]), hex::encode(&r[4..10]), hex::encode(&r[10..]));
        let name = format!("{a}-0000-4000-8000-{b}:{c}@mls-rs.example");
        let credential = BasicCredential::new(name.into_bytes()).into_credential();
        Ok((SigningIdentity::new(credential, public), secret))
    }

    fn keep(&mut self, group: impl Member + 'static) -> String {
        let name = (self.groups.len() + 1).to_string();
        self.groups.insert(name.clone(), Box::new(group));
        name
    }

    fn member(&mut self, request: &Value) -> Result<&mut Box<dyn Member>, Failure> {
        let name = string(request, "group")?;
        self.groups
            .get_mut(name)
            .ok_or_else(|| Failure::Refused(format!("no group {name:?}")))
    }

    fn suite(&self, request: &Value) -> Result<crypto::Suite, Failure> {
        let suite = request.get("suite").and_then(Value::as_u64);
        let suite = suite
            .and_then(|suite| u16::try_from(suite).ok())
            .ok_or_else(|| Failure::Refused("the request has no suite".into()))?;
        self.crypto
            .cipher_suite_provider(suite.into())
            .ok_or_else(|| {
                let missing = format!("the crypto provider does not serve cipher suite {suite}");
                Failure::Unsupported(missing)
            })
    }
}

fn string<'a>(request: &'a Value, field: &str) -> Result<&'a str, Failure> {
    let value = request.get(field).and_then(Value::as_str);
    value.ok_or_else(|| Failure::Refused(format!("the request has no {field}")))
}

fn bytes(request: &Value, field: &str) -> Result<Vec<u8>, Failure> {
    hex::decode(string(request, field)?).map_err(|e| Failure::Refused(format!("{field}: {e}")))
}
