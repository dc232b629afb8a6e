//! A member from its key package to the commits that it makes and processes.

use std::{fs, sync::Arc};

use base64::{engine::general_purpose::URL_SAFE, Engine};
use hsm_kp_openmls::{
    join, validated, Handle, PrivateKeyOf, Service, ServiceProvider, ServiceSigner, State,
};
use openmls::prelude::{tls_codec::Deserialize, *};
use openmls_traits::OpenMlsProvider;

use crate::{
    other::{add, commit, follow, receive, sent, talk, Other},
    setting,
};

#[test]
#[ignore = "needs a service"]
fn over_tls_with_a_key_package_of_the_directory() {
    for suite in setting::suites() {
        let key_package = published(suite);
        whole_way(setting::over_tls("MEMBER"), suite, key_package, true);
    }
}

#[test]
#[ignore = "needs a service"]
fn over_the_socket_with_a_key_package_that_was_claimed() {
    for suite in setting::suites() {
        let claimed = setting::over_tls("ADDER")
            .claim(&setting::identity(suite), 1)
            .unwrap();
        assert_eq!(claimed[0].state, State::Claimed);
        let other = Other::new("bob", suite);
        let key_package = validated(other.provider.crypto(), &claimed[0].mls_message).unwrap();
        whole_way(setting::over_socket(), suite, key_package, false);
    }
}

/// Fetches a key package from the directory.
fn published(suite: Ciphersuite) -> KeyPackage {
    let url = format!(
        "{}/clients/key_package/{}",
        setting::variable("DIRECTORY"),
        URL_SAFE.encode(setting::identity(suite))
    );
    let bytes = ureq::get(url)
        .call()
        .unwrap()
        .body_mut()
        .read_to_vec()
        .unwrap();
    KeyPackageIn::tls_deserialize_exact(bytes)
        .unwrap()
        .validate(
            Other::new("bob", suite).provider.crypto(),
            ProtocolVersion::Mls10,
        )
        .unwrap()
}

fn whole_way(service: Arc<Service>, suite: Ciphersuite, key_package: KeyPackage, kept: bool) {
    let number = u16::from(suite);
    let reference = key_package
        .hash_ref(&openmls_rust_crypto::RustCrypto::default())
        .unwrap();

    // bob adds alice.
    let bob = Other::new("bob", suite);
    let mut bobs = bob.group(true);
    let welcome = bob.add(&mut bobs, key_package);

    // alice joins with what the service has.
    let provider = ServiceProvider::new(service.clone());
    let signer = ServiceSigner::new(
        service.clone(),
        setting::identity(suite),
        suite.signature_algorithm(),
    );
    let config = MlsGroupJoinConfig::builder()
        .use_ratchet_tree_extension(true)
        .build();
    let joined = join(&provider, &config, welcome, None, &[]).unwrap();
    assert_eq!(joined.reservation.reference(), reference.as_slice());
    assert_eq!(
        service.get(reference.as_slice()).unwrap().state,
        State::Reserved
    );
    assert_eq!(joined.reservation.confirm().unwrap(), State::Consumed);
    let mut alices = joined.group;
    same_epoch(&alices, &bobs);

    talk(
        (&mut alices, &provider, &signer),
        (&mut bobs, &bob.provider),
        "from alice",
    );
    talk(
        (&mut bobs, &bob.provider, &bob.signer),
        (&mut alices, &provider),
        "from bob",
    );

    // bob commits: the path secret is encrypted to alice's leaf.
    let path = commit(&mut bobs, &bob.provider, &bob.signer);
    follow(&mut alices, &provider, path);
    same_epoch(&alices, &bobs);

    // By now alice has stored handles, and none of the key package's keys.
    let stored = stored(&provider);
    assert!(has_handle(
        &stored,
        reference.as_slice(),
        PrivateKeyOf::Leaf
    ));
    assert!(!has_handle(
        &stored,
        reference.as_slice(),
        PrivateKeyOf::Init
    ));
    if kept {
        fs::write(setting::out().join(format!("openmls-{number}")), stored).unwrap();
    }

    // alice proposes to update her leaf, commits with a path, and adds carol.
    let (proposal, _) = alices
        .propose_self_update(&provider, &signer, LeafNodeParameters::default())
        .unwrap();
    match receive(&mut bobs, &bob.provider, sent(&proposal)) {
        ProcessedMessageContent::ProposalMessage(_) => {}
        _ => panic!("not a proposal"),
    }
    alices
        .clear_pending_proposals(OpenMlsProvider::storage(&provider))
        .unwrap();
    let path = commit(&mut alices, &provider, &signer);
    follow(&mut bobs, &bob.provider, path);
    same_epoch(&alices, &bobs);
    let carol = Other::new("carol", suite);
    let (addition, welcome) = add(&mut alices, &provider, &signer, carol.key_package());
    follow(&mut bobs, &bob.provider, addition);
    let mut carols = carol.join(welcome);
    same_epoch(&alices, &carols);

    talk(
        (&mut alices, &provider, &signer),
        (&mut carols, &carol.provider),
        "from alice",
    );
    talk(
        (&mut carols, &carol.provider, &carol.signer),
        (&mut alices, &provider),
        "from carol",
    );

    // bob commits again, to the leaf that alice made herself.
    talk(
        (&mut bobs, &bob.provider, &bob.signer),
        (&mut alices, &provider),
        "from bob",
    );
    assert!(provider.crypto().take_error().is_none());
    assert!(signer.take_error().is_none());
    println!(
        "suite {number}: joined, confirmed, followed a commit and made two, in epoch {}",
        alices.epoch()
    );
}

fn same_epoch(a: &MlsGroup, b: &MlsGroup) {
    assert_eq!(a.epoch(), b.epoch());
    assert_eq!(
        a.epoch_authenticator().as_slice(),
        b.epoch_authenticator().as_slice()
    );
}

/// Everything that a member has stored, keys and values unchanged.
fn stored(provider: &ServiceProvider) -> Vec<u8> {
    let values = OpenMlsProvider::storage(provider).values.read().unwrap();
    assert!(!values.is_empty());
    assert!(!values
        .keys()
        .any(|key| key.starts_with(b"SignatureKeyPair")));
    values
        .iter()
        .flat_map(|(key, value)| [key.as_slice(), b"\n", value, b"\n"].concat())
        .collect()
}

/// Looks for a handle in the stored form of bytes: JSON, one number for each byte.
fn has_handle(stored: &[u8], reference: &[u8], of: PrivateKeyOf) -> bool {
    let handle = Handle {
        reference: reference.to_vec(),
        of,
    };
    let text = serde_json::to_string(&handle.to_bytes()).unwrap();
    let text = text.trim_matches(['[', ']']).as_bytes();
    stored.windows(text.len()).any(|part| part == text)
}
