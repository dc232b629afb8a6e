//! What the peer does with openmls. Each client has a new provider, and so its own storage.

use std::{fmt, rc::Rc};

use openmls::prelude::{
    tls_codec::{Deserialize, Serialize},
    BasicCredential, Capabilities, Ciphersuite, CredentialType, CredentialWithKey, HpkePrivateKey,
    KeyPackage, KeyPackageBundle, KeyPackageIn, LeafNodeParameters, MlsGroup, MlsGroupCreateConfig,
    MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, OpenMlsCrypto,
    ProcessedMessageContent, ProtocolVersion, RatchetTreeIn, StagedWelcome, WireFormatPolicy,
    MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY, MIXED_PLAINTEXT_WIRE_FORMAT_POLICY,
};
use openmls::storage::OpenMlsProvider;
use openmls_basic_credential::SignatureKeyPair;
use openmls_libcrux_crypto::Provider as Libcrux;
use openmls_rust_crypto::OpenMlsRustCrypto as RustCrypto;
use openmls_traits::storage::StorageProvider;
use serde_json::json;

use crate::{
    signer::{Ask, MemberSigner},
    Fault,
};

/// The identity of the peer's own clients, in the form that core-crypto needs to read their messages.
const IDENTITY: &[u8] = b"00000000-0000-4000-8000-000000000000:1@openmls.example";

/// The keys of a client that was made elsewhere.
pub struct JoinKeys {
    /// A KeyPackage in an MLSMessage.
    pub key_package: Vec<u8>,
    pub init_private_key: Vec<u8>,
    pub encryption_private_key: Vec<u8>,
}

/// A client in a group.
pub trait Member {
    fn epoch_authenticator(&self) -> Vec<u8>;
    /// Commits with a path and without proposals, and merges the commit. The commit is encrypted, as is
    /// openmls's default, or a public message.
    fn commit(&mut self, public: bool) -> Result<Vec<u8>, Fault>;
    /// Processes another member's commit, and merges it.
    fn process(&mut self, message: &[u8]) -> Result<(), Fault>;
    fn send(&mut self, data: &[u8]) -> Result<Vec<u8>, Fault>;
    fn receive(&mut self, message: &[u8]) -> Result<Vec<u8>, Fault>;
}

/// Calls a function with the provider that serves a suite.
macro_rules! by_provider {
    ($suite:expr, $function:ident($($argument:expr),*)) => {{
        let number = $suite;
        if rust_crypto_suites().contains(&number) {
            $function::<RustCrypto>(known(number)?, $($argument),*)
        } else if libcrux_suites().contains(&number) {
            $function::<Libcrux>(known(number)?, $($argument),*)
        } else {
            Err(Fault::Unsupported(format!(
                "no provider of openmls serves cipher suite {number}"
            )))
        }
    }};
}

/// Makes a key package with all of the library's defaults.
pub fn key_package(suite: u16) -> Result<Vec<u8>, Fault> {
    by_provider!(suite, key_package_with())
}

/// Validates a key package outside of a group.
pub fn validate(suite: u16, key_package: &[u8]) -> Result<(), Fault> {
    by_provider!(suite, validate_with(key_package))
}

/// Makes a group, adds a client to it, and returns the Welcome.
pub fn add(suite: u16, key_package: &[u8]) -> Result<(Box<dyn Member>, Vec<u8>), Fault> {
    by_provider!(suite, add_with(key_package))
}

/// Joins a group with keys that were made elsewhere.
pub fn join(
    suite: u16,
    keys: JoinKeys,
    welcome: &[u8],
    tree: Option<&[u8]>,
    ask: Rc<Ask>,
) -> Result<Box<dyn Member>, Fault> {
    by_provider!(suite, join_with(keys, welcome, tree, ask))
}

/// The numbers of all suites that a provider serves.
pub fn suites() -> Vec<u16> {
    let mut suites = rust_crypto_suites();
    suites.extend(libcrux_suites());
    suites.sort_unstable();
    suites.dedup();
    suites
}

pub fn rust_crypto_suites() -> Vec<u16> {
    suites_of::<RustCrypto>()
}

pub fn libcrux_suites() -> Vec<u16> {
    suites_of::<Libcrux>()
}

fn suites_of<P: Fresh>() -> Vec<u16> {
    let Ok(provider) = P::fresh() else {
        return Vec::new();
    };
    let crypto = provider.crypto();
    let mut suites: Vec<u16> = crypto
        .supported_ciphersuites()
        .into_iter()
        .filter(|suite| crypto.supports(*suite).is_ok())
        .map(u16::from)
        .collect();
    suites.sort_unstable();
    suites
}

fn known(suite: u16) -> Result<Ciphersuite, Fault> {
    Ciphersuite::try_from(suite).map_err(|e| library(&e))
}

/// A provider that can be created.
pub trait Fresh: OpenMlsProvider + Sized + 'static {
    fn fresh() -> Result<Self, Fault>;
}

impl Fresh for RustCrypto {
    fn fresh() -> Result<Self, Fault> {
        Ok(RustCrypto::default())
    }
}

impl Fresh for Libcrux {
    fn fresh() -> Result<Self, Fault> {
        Libcrux::new().map_err(|e| library(&e))
    }
}

/// A client of the peer's own, with a signature key of its own.
pub struct OwnClient<P> {
    pub provider: P,
    pub signer: MemberSigner,
    pub credential: CredentialWithKey,
}

impl<P: Fresh> OwnClient<P> {
    pub fn new(suite: Ciphersuite) -> Result<Self, Fault> {
        let key = SignatureKeyPair::new(suite.signature_algorithm()).map_err(|e| library(&e))?;
        Ok(OwnClient {
            provider: P::fresh()?,
            credential: CredentialWithKey {
                credential: BasicCredential::new(IDENTITY.to_vec()).into(),
                signature_key: key.public().into(),
            },
            signer: MemberSigner::Own(key),
        })
    }

    /// Makes a key package with all of the library's defaults.
    pub fn key_package(&self, suite: Ciphersuite) -> Result<KeyPackageBundle, Fault> {
        KeyPackage::builder()
            .build(suite, &self.provider, &self.signer, self.credential.clone())
            .map_err(|e| library(&e))
    }
}

fn key_package_with<P: Fresh>(suite: Ciphersuite) -> Result<Vec<u8>, Fault> {
    let bundle = OwnClient::<P>::new(suite)?.key_package(suite)?;
    encode(&MlsMessageOut::from(bundle.into_key_package()))
}

fn validate_with<P: Fresh>(_: Ciphersuite, key_package: &[u8]) -> Result<(), Fault> {
    validated(&P::fresh()?, key_package).map(|_| ())
}

fn add_with<P: Fresh>(
    suite: Ciphersuite,
    key_package: &[u8],
) -> Result<(Box<dyn Member>, Vec<u8>), Fault> {
    let OwnClient {
        provider,
        signer,
        credential,
    } = OwnClient::<P>::new(suite)?;
    let key_package = validated(&provider, key_package)?;
    let config = MlsGroupCreateConfig::builder()
        .ciphersuite(suite)
        .capabilities(
            Capabilities::builder()
                .credentials(vec![CredentialType::Basic, CredentialType::X509])
                .build(),
        )
        .use_ratchet_tree_extension(true)
        .wire_format_policy(MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .build();
    let mut group =
        MlsGroup::new(&provider, &signer, &config, credential).map_err(|e| library(&e))?;
    let (_commit, welcome, _group_info) = group
        .add_members(&provider, &signer, &[key_package])
        .map_err(|e| library(&e))?;
    group
        .merge_pending_commit(&provider)
        .map_err(|e| library(&e))?;
    let welcome = encode(&welcome)?;
    Ok((
        Box::new(GroupMember {
            provider,
            signer,
            group,
        }),
        welcome,
    ))
}

fn join_with<P: Fresh>(
    suite: Ciphersuite,
    keys: JoinKeys,
    welcome: &[u8],
    tree: Option<&[u8]>,
    ask: Rc<Ask>,
) -> Result<Box<dyn Member>, Fault> {
    let provider = P::fresh()?;
    let key_package = decoded_key_package(&keys.key_package)?.into_unchecked();
    let reference = key_package
        .hash_ref(provider.crypto())
        .map_err(|e| library(&e))?;
    let bundle = bundle(
        &key_package,
        keys.init_private_key,
        keys.encryption_private_key,
    )?;
    provider
        .storage()
        .write_key_package(&reference, &bundle)
        .map_err(|e| library(&e))?;

    let welcome = match decode::<MlsMessageIn>(welcome, "the Welcome")?.extract() {
        MlsMessageBodyIn::Welcome(welcome) => welcome,
        _ => return Err(Fault::refused("the MLSMessage is not a Welcome")),
    };
    let tree = tree
        .map(|tree| decode::<RatchetTreeIn>(tree, "the ratchet tree"))
        .transpose()?;
    let config = join_config(MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY);
    let group = StagedWelcome::new_from_welcome(&provider, &config, welcome, tree)
        .map_err(|e| library(&e))?
        .into_group(&provider)
        .map_err(|e| library(&e))?;
    Ok(Box::new(GroupMember {
        provider,
        signer: MemberSigner::asked(suite.signature_algorithm(), ask),
        group,
    }))
}

/// The library's default config of a joined group, except the policy.
fn join_config(policy: WireFormatPolicy) -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(policy)
        .build()
}

/// Combines a key package with its private keys. KeyPackageBundle::new is for tests of the library only, so
/// this uses the form in which bundles are stored.
fn bundle(
    key_package: &KeyPackage,
    init: Vec<u8>,
    encryption: Vec<u8>,
) -> Result<KeyPackageBundle, Fault> {
    let stored = json!({
        "key_package": key_package,
        "private_init_key": HpkePrivateKey::from(init),
        "private_encryption_key": {"key": HpkePrivateKey::from(encryption)},
    });
    serde_json::from_value(stored)
        .map_err(|e| Fault::refused(format!("the key package bundle: {e}")))
}

fn validated<P: Fresh>(provider: &P, key_package: &[u8]) -> Result<KeyPackage, Fault> {
    decoded_key_package(key_package)?
        .validate(provider.crypto(), ProtocolVersion::Mls10)
        .map_err(|e| library(&e))
}

fn decoded_key_package(message: &[u8]) -> Result<KeyPackageIn, Fault> {
    match decode::<MlsMessageIn>(message, "the key package")?.extract() {
        MlsMessageBodyIn::KeyPackage(key_package) => Ok(key_package),
        _ => Err(Fault::refused("the MLSMessage is not a key package")),
    }
}

struct GroupMember<P> {
    provider: P,
    signer: MemberSigner,
    group: MlsGroup,
}

impl<P: Fresh> GroupMember<P> {
    fn processed(&mut self, message: &[u8]) -> Result<ProcessedMessageContent, Fault> {
        let message = decode::<MlsMessageIn>(message, "the message")?
            .try_into_protocol_message()
            .map_err(|e| library(&e))?;
        self.group
            .process_message(&self.provider, message)
            .map(|processed| processed.into_content())
            .map_err(|e| library(&e))
    }

    /// An error of an operation that signs, and why there was no signature.
    fn unsigned(&self, error: &(impl fmt::Display + fmt::Debug)) -> Fault {
        match self.signer.why() {
            Some(why) => Fault::refused(format!("{}: {why}", said(error))),
            None => library(error),
        }
    }
}

impl<P: Fresh> Member for GroupMember<P> {
    fn epoch_authenticator(&self) -> Vec<u8> {
        self.group.epoch_authenticator().as_slice().to_vec()
    }

    fn commit(&mut self, public: bool) -> Result<Vec<u8>, Fault> {
        let policy = if public {
            MIXED_PLAINTEXT_WIRE_FORMAT_POLICY
        } else {
            MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY
        };
        self.group
            .set_configuration(self.provider.storage(), &join_config(policy))
            .map_err(|e| library(&e))?;
        let bundle = self
            .group
            .self_update(&self.provider, &self.signer, LeafNodeParameters::default())
            .map_err(|e| self.unsigned(&e))?;
        self.group
            .merge_pending_commit(&self.provider)
            .map_err(|e| library(&e))?;
        encode(bundle.commit())
    }

    fn process(&mut self, message: &[u8]) -> Result<(), Fault> {
        match self.processed(message)? {
            ProcessedMessageContent::StagedCommitMessage(commit) => self
                .group
                .merge_staged_commit(&self.provider, *commit)
                .map_err(|e| library(&e)),
            _ => Err(Fault::refused("not a commit")),
        }
    }

    fn send(&mut self, data: &[u8]) -> Result<Vec<u8>, Fault> {
        let message = self
            .group
            .create_message(&self.provider, &self.signer, data)
            .map_err(|e| self.unsigned(&e))?;
        encode(&message)
    }

    fn receive(&mut self, message: &[u8]) -> Result<Vec<u8>, Fault> {
        match self.processed(message)? {
            ProcessedMessageContent::ApplicationMessage(message) => Ok(message.into_bytes()),
            _ => Err(Fault::refused("not an application message")),
        }
    }
}

fn decode<T: Deserialize>(bytes: &[u8], what: &str) -> Result<T, Fault> {
    T::tls_deserialize_exact(bytes).map_err(|e| Fault::refused(format!("{what}: {}", said(&e))))
}

fn encode(message: &MlsMessageOut) -> Result<Vec<u8>, Fault> {
    message.tls_serialize_detached().map_err(|e| library(&e))
}

fn library(error: &(impl fmt::Display + fmt::Debug)) -> Fault {
    Fault::Refused(said(error))
}

/// The error's text on one line and, because many texts only point to an inner
/// error, the names of its variants.
fn said(error: &(impl fmt::Display + fmt::Debug)) -> String {
    let (text, names) = (error.to_string(), format!("{error:?}"));
    let line = if text == names {
        text
    } else {
        format!("{} ({names})", text.trim_end())
    };
    line.replace('\n', " ")
}
