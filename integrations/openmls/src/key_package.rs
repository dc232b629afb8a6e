//! Key packages of the service in the form of OpenMLS.

use openmls::prelude::{
    tls_codec::Deserialize, HpkePrivateKey, KeyPackage, KeyPackageBundle, KeyPackageVerifyError,
    MlsMessageBodyIn, MlsMessageIn, OpenMlsCrypto, OpenMlsRand, ProtocolVersion,
};
use openmls_traits::{
    storage::{StorageProvider, CURRENT_VERSION},
    OpenMlsProvider,
};
use serde_json::json;

use crate::{Error, Handle, PrivateKeyOf, ServiceProvider};

/// Why a key package of the service cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyPackageError<E> {
    /// See [`Error`].
    #[error(transparent)]
    Service(#[from] Error),
    /// OpenMLS cannot decode it, or it is not a key package.
    #[error("the service's answer is not a KeyPackage in an MLSMessage")]
    Decode,
    /// OpenMLS refuses it.
    #[error(transparent)]
    Invalid(#[from] KeyPackageVerifyError),
    /// It is not the key package that was requested.
    #[error("the service's answer is another key package")]
    Another,
    /// This version of OpenMLS stores key packages in a form that this crate does not know.
    #[error("the stored form of key packages is unknown: {0}")]
    Form(serde_json::Error),
    /// The storage failed.
    #[error("store the key package: {0}")]
    Storage(E),
}

/// Decodes and validates a KeyPackage in an MLSMessage, as anyone who adds its client to a group
/// must.
pub fn validated(
    crypto: &impl OpenMlsCrypto,
    mls_message: &[u8],
) -> Result<KeyPackage, KeyPackageError<std::convert::Infallible>> {
    decode(crypto, mls_message)
}

fn decode<E>(
    crypto: &impl OpenMlsCrypto,
    mls_message: &[u8],
) -> Result<KeyPackage, KeyPackageError<E>> {
    let message =
        MlsMessageIn::tls_deserialize_exact(mls_message).map_err(|_| KeyPackageError::Decode)?;
    match message.extract() {
        MlsMessageBodyIn::KeyPackage(key_package) => {
            Ok(key_package.validate(crypto, ProtocolVersion::Mls10)?)
        }
        _ => Err(KeyPackageError::Decode),
    }
}

impl<C, S> ServiceProvider<C, S>
where
    C: OpenMlsCrypto + OpenMlsRand,
    S: StorageProvider<CURRENT_VERSION>,
{
    /// Gets a key package from the service by its KeyPackageRef and stores it with handles instead
    /// of its private keys, so that OpenMLS opens Welcomes for it.
    pub fn load_key_package(
        &self,
        reference: &[u8],
    ) -> Result<KeyPackage, KeyPackageError<S::Error>> {
        let record = self.service().get(reference)?;
        let key_package = decode(self.crypto(), &record.mls_message)?;
        let computed = key_package
            .hash_ref(self.crypto())
            .map_err(|_| KeyPackageError::Decode)?;
        if computed.as_slice() != reference {
            return Err(KeyPackageError::Another);
        }
        let bundle = with_handles(&key_package, reference).map_err(KeyPackageError::Form)?;
        self.storage()
            .write_key_package(&computed, &bundle)
            .map_err(KeyPackageError::Storage)?;
        Ok(key_package)
    }
}

/// Combines a key package with the handles of its private keys. OpenMLS has no public way to do so,
/// as KeyPackageBundle::new is for its own tests; so this function decodes it from the form in
/// which OpenMLS stores it.
fn with_handles(
    key_package: &KeyPackage,
    reference: &[u8],
) -> Result<KeyPackageBundle, serde_json::Error> {
    let handle = |of| {
        let reference = reference.to_vec();
        HpkePrivateKey::from(Handle { reference, of }.to_bytes())
    };
    serde_json::from_value(json!({
        "key_package": key_package,
        "private_init_key": handle(PrivateKeyOf::Init),
        "private_encryption_key": {"key": handle(PrivateKeyOf::Leaf)},
    }))
}
