//! Members of plain OpenMLS, with private keys in software.

use openmls::{
    prelude::{
        tls_codec::{Deserialize, Serialize},
        *,
    },
    storage::OpenMlsProvider,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::signatures::Signer;

/// A client that becomes a member later.
pub struct Other {
    pub provider: OpenMlsRustCrypto,
    pub signer: SignatureKeyPair,
    pub credential: CredentialWithKey,
    suite: Ciphersuite,
}

impl Other {
    pub fn new(name: &str, suite: Ciphersuite) -> Self {
        let signer = SignatureKeyPair::new(suite.signature_algorithm()).unwrap();
        Other {
            provider: OpenMlsRustCrypto::default(),
            credential: CredentialWithKey {
                credential: BasicCredential::new(name.into()).into(),
                signature_key: signer.public().into(),
            },
            signer,
            suite,
        }
    }

    pub fn key_package(&self) -> KeyPackage {
        KeyPackage::builder()
            .build(
                self.suite,
                &self.provider,
                &self.signer,
                self.credential.clone(),
            )
            .unwrap()
            .into_key_package()
    }

    /// Makes a group whose GroupInfos carry the tree if `with_tree` is set.
    pub fn group(&self, with_tree: bool) -> MlsGroup {
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(self.suite)
            .use_ratchet_tree_extension(with_tree)
            .build();
        MlsGroup::new(
            &self.provider,
            &self.signer,
            &config,
            self.credential.clone(),
        )
        .unwrap()
    }

    /// Adds a client to a group, and returns the Welcome.
    pub fn add(&self, group: &mut MlsGroup, key_package: KeyPackage) -> Welcome {
        add(group, &self.provider, &self.signer, key_package).1
    }

    /// Joins a group by a Welcome that carries the tree.
    pub fn join(&self, welcome: Welcome) -> MlsGroup {
        StagedWelcome::new_from_welcome(
            &self.provider,
            &MlsGroupJoinConfig::default(),
            welcome,
            None,
        )
        .unwrap()
        .into_group(&self.provider)
        .unwrap()
    }
}

/// Adds a client to a group, and returns the commit and the Welcome.
pub fn add(
    group: &mut MlsGroup,
    provider: &impl OpenMlsProvider,
    signer: &impl Signer,
    key_package: KeyPackage,
) -> (MlsMessageIn, Welcome) {
    let (commit, welcome, _) = group.add_members(provider, signer, &[key_package]).unwrap();
    group.merge_pending_commit(provider).unwrap();
    let MlsMessageBodyIn::Welcome(welcome) = sent(&welcome).extract() else {
        panic!("add_members returned another message than a Welcome")
    };
    (sent(&commit), welcome)
}

/// Returns a message as the receiver decodes it from the network.
pub fn sent(message: &MlsMessageOut) -> MlsMessageIn {
    MlsMessageIn::tls_deserialize_exact(message.tls_serialize_detached().unwrap()).unwrap()
}

/// Processes a message of another member.
pub fn receive(
    group: &mut MlsGroup,
    provider: &impl OpenMlsProvider,
    message: MlsMessageIn,
) -> ProcessedMessageContent {
    group
        .process_message(provider, message.try_into_protocol_message().unwrap())
        .unwrap()
        .into_content()
}

/// Processes another member's commit, and merges it.
pub fn follow(group: &mut MlsGroup, provider: &impl OpenMlsProvider, commit: MlsMessageIn) {
    match receive(group, provider, commit) {
        ProcessedMessageContent::StagedCommitMessage(commit) => {
            group.merge_staged_commit(provider, *commit).unwrap();
        }
        _ => panic!("not a commit"),
    }
}

/// Commits with a path, and returns the commit.
pub fn commit(
    group: &mut MlsGroup,
    provider: &impl OpenMlsProvider,
    signer: &impl Signer,
) -> MlsMessageIn {
    let bundle = group
        .self_update(provider, signer, LeafNodeParameters::default())
        .unwrap();
    group.merge_pending_commit(provider).unwrap();
    sent(bundle.commit())
}

/// Sends a text from one member to another.
pub fn talk<P: OpenMlsProvider, Q: OpenMlsProvider>(
    from: (&mut MlsGroup, &P, &impl Signer),
    to: (&mut MlsGroup, &Q),
    text: &str,
) {
    let (group, provider, signer) = from;
    let message = group
        .create_message(provider, signer, text.as_bytes())
        .unwrap();
    match receive(to.0, to.1, sent(&message)) {
        ProcessedMessageContent::ApplicationMessage(message) => {
            assert_eq!(message.into_bytes(), text.as_bytes());
        }
        _ => panic!("not an application message"),
    }
}
