//! Every suite of hello is tested here, from a key package to commits and messages in both directions.

use std::rc::Rc;

use openmls::prelude::{tls_codec::Serialize, Ciphersuite, MlsMessageOut};
use openmls_libcrux_crypto::Provider as Libcrux;
use openmls_rust_crypto::OpenMlsRustCrypto as RustCrypto;
use openmls_traits::signatures::Signer;
use serde_json::Value;

use crate::client::{
    add, join, key_package, libcrux_suites, rust_crypto_suites, suites, validate, Fresh, JoinKeys,
    OwnClient,
};

#[test]
fn every_suite() {
    assert!(!suites().is_empty());
    for suite in suites() {
        if rust_crypto_suites().contains(&suite) {
            all_the_way::<RustCrypto>(suite);
        } else {
            assert!(libcrux_suites().contains(&suite));
            all_the_way::<Libcrux>(suite);
        }
    }
}

fn all_the_way<P: Fresh>(number: u16) {
    validate(number, &key_package(number).unwrap()).unwrap();

    let suite = Ciphersuite::try_from(number).unwrap();
    let client = OwnClient::<P>::new(suite).unwrap();
    let bundle = client.key_package(suite).unwrap();
    let stored = serde_json::to_value(&bundle).unwrap();
    let keys = JoinKeys {
        key_package: MlsMessageOut::from(bundle.key_package().clone())
            .tls_serialize_detached()
            .unwrap(),
        init_private_key: key(&stored["private_init_key"]),
        encryption_private_key: key(&stored["private_encryption_key"]["key"]),
    };
    let signer = client.signer;
    let ask = move |content: &[u8]| signer.sign(content).map_err(|e| format!("{e:?}"));

    let (mut creator, welcome) = add(number, &keys.key_package).unwrap();
    let mut joiner = join(number, keys, &welcome, None, Rc::new(ask)).unwrap();
    assert_eq!(creator.epoch_authenticator(), joiner.epoch_authenticator());
    let commit = creator.commit(false).unwrap();
    joiner.process(&commit).unwrap();
    assert_eq!(creator.epoch_authenticator(), joiner.epoch_authenticator());
    let commit = joiner.commit(true).unwrap();
    creator.process(&commit).unwrap();
    assert_eq!(creator.epoch_authenticator(), joiner.epoch_authenticator());
    let message = joiner.send(b"from the one who joined").unwrap();
    assert_eq!(
        creator.receive(&message).unwrap(),
        b"from the one who joined"
    );
    let message = creator.send(b"from the creator").unwrap();
    assert_eq!(joiner.receive(&message).unwrap(), b"from the creator");
}

/// A private key as the library stores it.
fn key(stored: &Value) -> Vec<u8> {
    serde_json::from_value::<openmls::prelude::HpkePrivateKey>(stored.clone())
        .unwrap()
        .to_vec()
}
