//! Bob, whose keys are in this process, adds a client whose keys are in the service:
//! `cargo run --example hello -- /run/hsm-kp/hsm-kp.sock alice`.

use std::{env, error::Error, sync::Arc};

use hsm_kp_openmls::{
    join, validated, Handle, PrivateKeyOf, Service, ServiceProvider, ServiceSigner,
};
use openmls::prelude::{
    tls_codec::{Deserialize, Serialize},
    *,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    let [_, socket, identity] = arguments.as_slice() else {
        return Err("usage: hello SOCKET IDENTITY".into());
    };
    let service = Arc::new(Service::unix(socket));

    let bob = OpenMlsRustCrypto::default();
    let claimed = service.claim(identity, 1)?.remove(0);
    let key_package = validated(bob.crypto(), &claimed.mls_message)?;
    let suite = key_package.ciphersuite();
    let bobs_key = SignatureKeyPair::new(suite.into())?;
    let mut bobs = group_of_bob(&bob, &bobs_key, suite)?;
    let (_, welcome, _) = bobs.add_members(&bob, &bobs_key, &[key_package])?;
    bobs.merge_pending_commit(&bob)?;
    let MlsMessageBodyIn::Welcome(welcome) = received(&welcome)?.extract() else {
        return Err("bob's library made no Welcome".into());
    };

    let provider = ServiceProvider::new(service.clone());
    let signer = ServiceSigner::new(service, identity, suite.into());
    let joined = join(
        &provider,
        &MlsGroupJoinConfig::default(),
        welcome,
        None,
        &[],
    )?;
    let state = joined.reservation.confirm()?;
    let mut group = joined.group;
    let leaf = Handle {
        reference: claimed.reference,
        of: PrivateKeyOf::Leaf,
    };
    println!("leaf's key:  {leaf}");
    println!("key package: {state:?}");

    let message = group.create_message(&provider, &signer, b"hello from the token")?;
    let message = received(&message)?.try_into_protocol_message()?;
    match bobs.process_message(&bob, message)?.into_content() {
        ProcessedMessageContent::ApplicationMessage(message) => {
            let text = String::from_utf8(message.into_bytes())?;
            println!("bob reads:   {text}");
            Ok(())
        }
        _ => Err("bob reads something else".into()),
    }
}

/// Returns a message as the receiver decodes it from the network.
fn received(message: &MlsMessageOut) -> Result<MlsMessageIn, Box<dyn Error>> {
    let bytes = message.tls_serialize_detached()?;
    Ok(MlsMessageIn::tls_deserialize_exact(bytes)?)
}

fn group_of_bob(
    provider: &OpenMlsRustCrypto,
    key: &SignatureKeyPair,
    suite: Ciphersuite,
) -> Result<MlsGroup, Box<dyn Error>> {
    let config = MlsGroupCreateConfig::builder()
        .ciphersuite(suite)
        .use_ratchet_tree_extension(true)
        .build();
    let credential = CredentialWithKey {
        credential: BasicCredential::new(b"bob".to_vec()).into(),
        signature_key: key.public().into(),
    };
    Ok(MlsGroup::new(provider, key, &config, credential)?)
}
