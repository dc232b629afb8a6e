//! What a member gets when a request is refused, and what it can do then. All tests use the first
//! suite.

use std::sync::Arc;

use hsm_kp_openmls::{
    join, stage, validated, Error, Handle, JoinError, KeyPackageRecord, PreSharedKey, Reason,
    Service, ServiceProvider, ServiceSigner, State, Tls,
};
use openmls::{
    prelude::{
        tls_codec::{Deserialize, Serialize},
        *,
    },
    schedule::{ExternalPsk, PreSharedKeyId, Psk},
};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider;

use crate::{
    other::{commit, follow, sent, Other},
    setting,
};

/// alice with a claimed key package, and bob, who adds her.
struct Pair {
    suite: Ciphersuite,
    alice: ServiceProvider,
    reference: Vec<u8>,
    key_package: KeyPackage,
    bob: Other,
}

impl Pair {
    fn new() -> Self {
        let identity = setting::identity(setting::suites()[0]);
        let adder = setting::over_tls("ADDER");
        Self::of(adder.claim(&identity, 1).unwrap().remove(0))
    }

    fn of(record: KeyPackageRecord) -> Self {
        let suite = setting::suites()[0];
        Pair {
            suite,
            alice: ServiceProvider::new(setting::over_socket()),
            key_package: validated(&RustCrypto::default(), &record.mls_message).unwrap(),
            reference: record.reference,
            bob: Other::new("bob", suite),
        }
    }

    /// bob adds alice to a new group.
    fn added(&self, with_tree: bool) -> (MlsGroup, Welcome) {
        let mut group = self.bob.group(with_tree);
        let welcome = self.bob.add(&mut group, self.key_package.clone());
        (group, welcome)
    }

    fn join(
        &self,
        welcome: &Welcome,
        tree: Option<RatchetTreeIn>,
        psks: &[PreSharedKey],
    ) -> Result<hsm_kp_openmls::Joined, Refused> {
        let config = MlsGroupJoinConfig::default();
        join(&self.alice, &config, welcome.clone(), tree, psks)
    }

    fn state(&self) -> State {
        self.alice.service().get(&self.reference).unwrap().state
    }
}

type Refused = JoinError<openmls_rust_crypto::MemoryStorageError>;

#[test]
#[ignore = "needs a service"]
fn a_forged_welcome_costs_nothing() {
    let pair = Pair::new();
    let (_, welcome) = pair.added(true);
    let mut bytes = welcome.tls_serialize_detached().unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let forged = Welcome::tls_deserialize_exact(bytes).unwrap();
    match pair.join(&forged, None, &[]) {
        Err(JoinError::NotOpened(e)) => assert_eq!(e.reason(), Some(Reason::NotOpened)),
        other => panic!("{other:?}"),
    }
    assert_eq!(pair.state(), State::Claimed);
    let joined = pair.join(&welcome, None, &[]).unwrap();
    assert_eq!(joined.reservation.confirm().unwrap(), State::Consumed);
}

#[test]
#[ignore = "needs a service"]
fn the_key_package_of_a_group_that_openmls_refuses_is_released() {
    let pair = Pair::new();
    let (group, welcome) = pair.added(false);
    match pair.join(&welcome, None, &[]) {
        Err(JoinError::Refused { error, unreleased }) => {
            assert!(
                matches!(*error, WelcomeError::MissingRatchetTree),
                "{error:?}"
            );
            assert!(unreleased.is_none(), "{unreleased:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(pair.state(), State::Claimed);
    let tree = group.export_ratchet_tree().into();
    let joined = pair.join(&welcome, Some(tree), &[]).unwrap();
    assert_eq!(joined.reservation.release().unwrap(), State::Claimed);
}

#[test]
#[ignore = "needs a service"]
fn a_group_is_looked_at_before_it_is_joined() {
    let pair = Pair::new();
    let (_, welcome) = pair.added(true);
    let config = MlsGroupJoinConfig::default();
    let open = || stage(&pair.alice, &config, welcome.clone(), None, &[]).unwrap();
    let staged = open();
    assert_eq!(staged.welcome.members().count(), 2);
    assert_eq!(pair.state(), State::Reserved);
    assert_eq!(staged.reservation.release().unwrap(), State::Claimed);
    let joined = open().into_group(&pair.alice).unwrap();
    assert_eq!(joined.reservation.confirm().unwrap(), State::Consumed);
}

#[test]
#[ignore = "needs a service"]
fn a_key_package_of_last_resort_joins_two_groups() {
    let handle = format!("hsm-kp:leaf:{}", setting::variable("LAST_RESORT"));
    let reference = Handle::parse(handle.as_bytes()).unwrap().reference;
    let pair = Pair::of(setting::over_socket().get(&reference).unwrap());
    assert!(pair.key_package.last_resort());
    let mut groups: Vec<(MlsGroup, MlsGroup)> = (0..2)
        .map(|_| {
            let (bobs, welcome) = pair.added(true);
            let joined = pair.join(&welcome, None, &[]).unwrap();
            let state = joined.reservation.confirm().unwrap();
            assert_ne!(state, State::Consumed);
            (bobs, joined.group)
        })
        .collect();
    for (bobs, alices) in &mut groups {
        let path = commit(bobs, &pair.bob.provider, &pair.bob.signer);
        follow(alices, &pair.alice, path);
    }
}

#[test]
#[ignore = "needs a service"]
fn a_member_that_was_stored_and_not_confirmed_is_confirmed_later() {
    let pair = Pair::new();
    let (_, welcome) = pair.added(true);
    let digest = pair
        .join(&welcome, None, &[])
        .unwrap()
        .reservation
        .welcome_digest()
        .to_vec();
    let reservation = match pair.join(&welcome, None, &[]) {
        Err(JoinError::GroupExists(reservation)) => reservation,
        other => panic!("{other:?}"),
    };
    assert_eq!(reservation.welcome_digest(), digest);
    assert!(
        reservation.until().ends_with('Z'),
        "{}",
        reservation.until()
    );
    assert_eq!(reservation.confirm().unwrap(), State::Consumed);
    assert_eq!(reservation.confirm().unwrap(), State::Consumed);
    assert!(reservation.release().is_err());
    match pair.join(&welcome, None, &[]) {
        Err(JoinError::NotOpened(e)) => assert_eq!(e.reason(), Some(Reason::Consumed)),
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs a service"]
fn a_welcome_for_others_is_told_apart() {
    let pair = Pair::new();
    let carol = Other::new("carol", pair.suite);
    let welcome = pair.bob.add(&mut pair.bob.group(true), carol.key_package());
    match pair.join(&welcome, None, &[]) {
        Err(JoinError::NotForUs) => {}
        other => panic!("{other:?}"),
    }

    // A key package with private keys of its own is not the service's either.
    let own = KeyPackage::builder()
        .build(
            pair.suite,
            &pair.alice,
            &pair.bob.signer,
            pair.bob.credential.clone(),
        )
        .unwrap();
    let welcome = carol.add(&mut carol.group(true), own.into_key_package());
    match pair.join(&welcome, None, &[]) {
        Err(JoinError::NotForUs) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs a service"]
fn pre_shared_keys_go_with_the_welcome() {
    let pair = Pair::new();
    let (id, secret) = (b"a psk".as_slice(), [7; 32]);
    let psk = PreSharedKeyId::new(
        pair.suite,
        pair.bob.provider.rand(),
        Psk::External(ExternalPsk::new(id.to_vec())),
    )
    .unwrap();
    psk.store(&pair.bob.provider, &secret).unwrap();
    psk.store(&pair.alice, &secret).unwrap();
    let mut group = pair.bob.group(true);
    group
        .propose_pre_shared_key(&pair.bob.provider, &pair.bob.signer, psk)
        .unwrap();
    let welcome = pair.bob.add(&mut group, pair.key_package.clone());
    match pair.join(&welcome, None, &[]) {
        Err(JoinError::NotOpened(e)) => assert_eq!(e.reason(), Some(Reason::NotOpened)),
        other => panic!("{other:?}"),
    }
    let joined = pair
        .join(&welcome, None, &[PreSharedKey::new(id, &secret)])
        .unwrap();
    assert_eq!(
        joined.group.epoch_authenticator().as_slice(),
        group.epoch_authenticator().as_slice()
    );
    joined.reservation.confirm().unwrap();
}

#[test]
#[ignore = "needs a service"]
fn a_commit_is_processed_again_once_the_service_is_back() {
    let pair = Pair::new();
    let (mut bobs, welcome) = pair.added(true);
    let joined = pair.join(&welcome, None, &[]).unwrap();
    joined.reservation.confirm().unwrap();
    let mut alices = joined.group;
    let path = commit(&mut bobs, &pair.bob.provider, &pair.bob.signer);

    let nowhere = Arc::new(Service::unix("/nonexistent/hsm-kp.sock"));
    let away = pair.alice.with_service(nowhere);
    alices
        .process_message(&away, path.clone().try_into_protocol_message().unwrap())
        .unwrap_err();
    let error = away.crypto().take_error().unwrap();
    assert!(matches!(error, Error::Away(_)), "{error}");
    assert!(error.is_passing());
    assert!(away.crypto().take_error().is_none());

    follow(
        &mut alices,
        &away.with_service(setting::over_tls("MEMBER")),
        path,
    );
    assert_eq!(
        alices.epoch_authenticator().as_slice(),
        bobs.epoch_authenticator().as_slice()
    );
}

#[test]
#[ignore = "needs a service"]
fn what_is_not_granted_is_said() {
    let pair = Pair::new();
    let (mut bobs, welcome) = pair.added(true);
    let mut alices = pair.join(&welcome, None, &[]).unwrap().group;

    // A caller that may only claim.
    let signer = ServiceSigner::new(
        setting::over_tls("ADDER"),
        setting::identity(pair.suite),
        pair.suite.into(),
    );
    alices
        .create_message(&pair.alice, &signer, b"hello")
        .unwrap_err();
    let error = signer.take_error().unwrap();
    assert_eq!(error.reason(), Some(Reason::NotGranted), "{error}");
    assert!(!error.is_passing());

    // A caller that may not claim.
    let error = setting::over_tls("MEMBER")
        .claim(&setting::identity(pair.suite), 1)
        .unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NotGranted), "{error}");

    // alice can still sign as herself.
    let signer = ServiceSigner::new(
        setting::over_tls("MEMBER"),
        setting::identity(pair.suite),
        pair.suite.into(),
    );
    let message = alices
        .create_message(&pair.alice, &signer, b"hello")
        .unwrap();
    let message = sent(&message).try_into_protocol_message().unwrap();
    bobs.process_message(&pair.bob.provider, message).unwrap();
}

#[test]
#[ignore = "needs a service"]
fn key_packages_that_openmls_makes_are_signed() {
    let pair = Pair::new();
    let leaf = pair.key_package.leaf_node();
    let credential = CredentialWithKey {
        credential: leaf.credential().clone(),
        signature_key: leaf.signature_key().clone(),
    };
    let signer = ServiceSigner::new(
        setting::over_socket(),
        setting::identity(pair.suite),
        pair.suite.into(),
    );
    KeyPackage::builder()
        .build(pair.suite, &pair.alice, &signer, credential.clone())
        .unwrap();

    // They do not belong to another credential.
    let other = CredentialWithKey {
        credential: BasicCredential::new(b"mallory".to_vec()).into(),
        ..credential
    };
    KeyPackage::builder()
        .build(pair.suite, &pair.alice, &signer, other)
        .unwrap_err();
    let error = signer.take_error().unwrap();
    assert_eq!(error.reason(), Some(Reason::ForeignContent), "{error}");
}

#[test]
#[ignore = "needs a service"]
fn another_ca_is_no_service() {
    let own = std::fs::read(setting::variable("MEMBER_CERTIFICATE")).unwrap();
    let key = std::fs::read(setting::variable("MEMBER_KEY")).unwrap();
    let url = setting::variable("URL");
    let service = |url: &str, ca: &[u8], key: &[u8]| {
        let certificate = &own;
        Service::tls(
            url,
            &Tls {
                ca,
                certificate,
                key,
            },
        )
    };
    let error = service(&url, &own, &key)
        .unwrap()
        .get(&[0; 32])
        .unwrap_err();
    assert!(matches!(error, Error::Away(_)), "{error}");

    let plain = url.replace("https", "http");
    for faulty in [
        service(&plain, &own, &key),
        service(&url, b"no PEM", &key),
        service(&url, &own, &own),
    ] {
        assert!(matches!(faulty, Err(Error::Config(_))), "{faulty:?}");
    }
}
