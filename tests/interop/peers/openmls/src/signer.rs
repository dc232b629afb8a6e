//! The signer of a member: a key of the peer's own, or the program that started the peer.

use std::{cell::RefCell, rc::Rc};

use openmls_basic_credential::SignatureKeyPair;
use openmls_traits::{
    signatures::{Signer, SignerError},
    types::SignatureScheme,
};

/// Signs an encoded SignContent; openmls has already put the label into it.
pub type Ask = dyn Fn(&[u8]) -> Result<Vec<u8>, String>;

pub enum MemberSigner {
    Own(SignatureKeyPair),
    Asked {
        scheme: SignatureScheme,
        ask: Rc<Ask>,
        /// Why the last signature failed, which a SignerError cannot carry.
        why: RefCell<Option<String>>,
    },
}

impl MemberSigner {
    pub fn asked(scheme: SignatureScheme, ask: Rc<Ask>) -> Self {
        MemberSigner::Asked {
            scheme,
            ask,
            why: RefCell::new(None),
        }
    }

    /// Takes the reason of the last failed signature.
    pub fn why(&self) -> Option<String> {
        match self {
            MemberSigner::Own(_) => None,
            MemberSigner::Asked { why, .. } => why.take(),
        }
    }
}

impl Signer for MemberSigner {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        match self {
            MemberSigner::Own(key) => key.sign(payload),
            MemberSigner::Asked { ask, why, .. } => ask(payload).map_err(|text| {
                why.replace(Some(text));
                SignerError::SigningError
            }),
        }
    }

    fn signature_scheme(&self) -> SignatureScheme {
        match self {
            MemberSigner::Own(key) => key.signature_scheme(),
            MemberSigner::Asked { scheme, .. } => *scheme,
        }
    }
}
