//! A signer that lets the service sign.

use std::sync::{Arc, Mutex, PoisonError};

use openmls::prelude::SignatureScheme;
use openmls_traits::signatures::{Signer, SignerError};

use crate::{labeled::Labeled, Error, Service};

/// Signs as an identity of the service, with its key in the token.
///
/// OpenMLS's errors cannot carry why the service did not sign: [`take_error`](Self::take_error)
/// returns it.
#[derive(Debug)]
pub struct ServiceSigner {
    service: Arc<Service>,
    identity: String,
    scheme: SignatureScheme,
    error: Mutex<Option<Error>>,
}

impl ServiceSigner {
    /// Makes a signer of an identity whose cipher suite has the given signature scheme.
    pub fn new(
        service: Arc<Service>,
        identity: impl Into<String>,
        scheme: SignatureScheme,
    ) -> Self {
        ServiceSigner {
            service,
            identity: identity.into(),
            scheme,
            error: Mutex::default(),
        }
    }

    /// Takes the error of the last time that the service did not sign. `None` means that there was
    /// no such time, or that the error was taken already.
    pub fn take_error(&self) -> Option<Error> {
        self.error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn sign_content(&self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let labeled = Labeled::parse(payload)?;
        self.service
            .sign_with_label(&self.identity, &labeled.label, labeled.content.as_slice())
    }
}

impl Signer for ServiceSigner {
    /// Signs an encoded SignContent (RFC 9420, Section 5.1.2), which is what OpenMLS signs.
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.sign_content(payload).map_err(|error| {
            *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            SignerError::SigningError
        })
    }

    fn signature_scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
