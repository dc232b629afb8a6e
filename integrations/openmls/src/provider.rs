//! The provider of a member without the private keys of its key package.

use std::sync::Arc;

use openmls::prelude::{OpenMlsCrypto, OpenMlsRand};
use openmls_rust_crypto::{MemoryStorage, RustCrypto};
use openmls_traits::{
    storage::{StorageProvider, CURRENT_VERSION},
    OpenMlsProvider,
};

use crate::{PreSharedKey, Service, ServiceCrypto};

/// A provider of OpenMLS over a service: [`ServiceCrypto`], with randomness and storage from
/// elsewhere. `C` is a crypto provider of OpenMLS that also provides randomness, such as that of
/// `openmls_rust_crypto`; `S` is where members are stored.
#[derive(Debug)]
pub struct ServiceProvider<C = RustCrypto, S = MemoryStorage> {
    crypto: ServiceCrypto<C>,
    storage: S,
}

impl ServiceProvider {
    /// Makes a provider with the crypto of `openmls_rust_crypto` that stores members in memory.
    pub fn new(service: Arc<Service>) -> Self {
        Self::with(service, RustCrypto::default(), MemoryStorage::default())
    }
}

impl<C, S> ServiceProvider<C, S> {
    /// Makes a provider with another crypto provider and another storage.
    pub fn with(service: Arc<Service>, crypto: C, storage: S) -> Self {
        ServiceProvider {
            crypto: ServiceCrypto::new(Arc::new(crypto), service),
            storage,
        }
    }

    /// The same members and service, with another connection, for example with a new certificate.
    pub fn with_service(self, service: Arc<Service>) -> Self {
        ServiceProvider {
            crypto: self.crypto.with_service(service),
            storage: self.storage,
        }
    }

    /// The service that has the private keys.
    pub fn service(&self) -> &Arc<Service> {
        self.crypto.service()
    }
}

impl<C, S> OpenMlsProvider for ServiceProvider<C, S>
where
    C: OpenMlsCrypto + OpenMlsRand,
    S: StorageProvider<CURRENT_VERSION>,
{
    type CryptoProvider = ServiceCrypto<C>;
    type RandProvider = C;
    type StorageProvider = S;

    fn storage(&self) -> &S {
        &self.storage
    }

    fn crypto(&self) -> &ServiceCrypto<C> {
        &self.crypto
    }

    fn rand(&self) -> &C {
        self.crypto.inner()
    }
}

/// The provider while it opens one Welcome, so that what the service returns belongs to that
/// Welcome.
pub(crate) struct Opening<'a, C, S> {
    crypto: ServiceCrypto<C>,
    storage: &'a S,
}

impl<'a, C, S> Opening<'a, C, S> {
    pub fn new(provider: &'a ServiceProvider<C, S>, psks: &[PreSharedKey]) -> Self {
        Opening {
            crypto: provider.crypto.for_welcome(psks),
            storage: &provider.storage,
        }
    }
}

impl<C, S> OpenMlsProvider for Opening<'_, C, S>
where
    C: OpenMlsCrypto + OpenMlsRand,
    S: StorageProvider<CURRENT_VERSION>,
{
    type CryptoProvider = ServiceCrypto<C>;
    type RandProvider = C;
    type StorageProvider = S;

    fn storage(&self) -> &S {
        self.storage
    }

    fn crypto(&self) -> &ServiceCrypto<C> {
        &self.crypto
    }

    fn rand(&self) -> &C {
        self.crypto.inner()
    }
}
