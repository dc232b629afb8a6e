//! Basic credentials with the library's basic provider, X.509 ones with its X.509 provider. The library
//! leaves two decisions to the application: whether to accept more than one kind, and which certificates to
//! trust.

use std::{error, fmt};

use mls_rs::{
    crypto::SignaturePublicKey,
    error::IntoAnyError,
    identity::{
        basic::{BasicIdentityProvider, BasicIdentityProviderError},
        x509::{
            CertificateChain, SubjectIdentityExtractor, X509CertificateReader,
            X509CredentialValidator, X509IdentityError, X509IdentityProvider,
        },
        CredentialType, SigningIdentity,
    },
    time::MlsTime,
    ExtensionList, IdentityProvider,
};
use mls_rs_core::identity::MemberValidationContext;
use mls_rs_crypto_openssl::{
    openssl::{
        stack::Stack,
        x509::{
            store::X509StoreBuilder,
            verify::{X509VerifyFlags, X509VerifyParam},
            X509StoreContext, X509VerifyResult, X509,
        },
    },
    x509::{X509Error, X509Reader},
};

/// Accepts a chain if each certificate is signed by the next and valid now. It trusts any last one: a test
/// has no trust anchors of its own. (The provider's own X509Validator accepts only self-signed anchors.)
#[derive(Clone, Debug)]
pub struct LastIsTrusted;

impl X509CredentialValidator for LastIsTrusted {
    type Error = X509Error;

    fn validate_chain(
        &self,
        chain: &CertificateChain,
        timestamp: Option<MlsTime>,
    ) -> Result<SignaturePublicKey, X509Error> {
        let (Some(first), Some(last)) = (chain.first(), chain.last()) else {
            return Err(X509Error::EmptyCertificateChain);
        };

        let mut parameters = X509VerifyParam::new()?;
        parameters.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
        match timestamp {
            Some(time) => parameters.set_time(time.seconds_since_epoch() as i64),
            None => parameters.set_flags(X509VerifyFlags::NO_CHECK_TIME)?,
        }

        let mut store = X509StoreBuilder::new()?;
        store.add_cert(X509::from_der(last)?)?;
        store.set_param(&parameters)?;

        let mut certificates = Stack::new()?;
        for certificate in chain.iter() {
            certificates.push(X509::from_der(certificate)?)?;
        }

        let result = X509StoreContext::new()?.init(
            &store.build(),
            X509::from_der(first)?.as_ref(),
            &certificates,
            |context| {
                context.verify_cert()?;
                Ok(context.error())
            },
        )?;
        if result != X509VerifyResult::OK {
            let reason = result.error_string().to_string();
            return Err(X509Error::ChainValidationFailure(reason));
        }

        // The library compares it with the leaf node's signature key.
        X509Reader::new().public_key(first)
    }
}

#[derive(Debug)]
pub enum Error {
    Basic(BasicIdentityProviderError),
    X509(X509IdentityError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic(e) => e.fmt(f),
            Self::X509(e) => e.fmt(f),
        }
    }
}

impl error::Error for Error {}

impl IntoAnyError for Error {
    fn into_dyn_error(self) -> Result<Box<dyn error::Error + Send + Sync>, Self> {
        Ok(self.into())
    }
}

#[derive(Clone, Debug)]
pub struct Provider {
    basic: BasicIdentityProvider,
    x509: X509IdentityProvider<SubjectIdentityExtractor<X509Reader>, LastIsTrusted>,
}

impl Provider {
    pub fn new() -> Self {
        Self {
            basic: BasicIdentityProvider::new(),
            x509: X509IdentityProvider::new(
                SubjectIdentityExtractor::new(0, X509Reader::new()),
                LastIsTrusted,
            ),
        }
    }
}

fn is_x509(identity: &SigningIdentity) -> bool {
    identity.credential.credential_type() == CredentialType::X509
}

impl IdentityProvider for Provider {
    type Error = Error;

    fn validate_member(
        &self,
        identity: &SigningIdentity,
        timestamp: Option<MlsTime>,
        context: MemberValidationContext<'_>,
    ) -> Result<(), Error> {
        if is_x509(identity) {
            return self
                .x509
                .validate_member(identity, timestamp, context)
                .map_err(Error::X509);
        }
        self.basic
            .validate_member(identity, timestamp, context)
            .map_err(Error::Basic)
    }

    fn validate_external_sender(
        &self,
        identity: &SigningIdentity,
        timestamp: Option<MlsTime>,
        extensions: Option<&ExtensionList>,
    ) -> Result<(), Error> {
        if is_x509(identity) {
            return self
                .x509
                .validate_external_sender(identity, timestamp, extensions)
                .map_err(Error::X509);
        }
        self.basic
            .validate_external_sender(identity, timestamp, extensions)
            .map_err(Error::Basic)
    }

    fn identity(
        &self,
        identity: &SigningIdentity,
        extensions: &ExtensionList,
    ) -> Result<Vec<u8>, Error> {
        if is_x509(identity) {
            return self
                .x509
                .identity(identity, extensions)
                .map_err(Error::X509);
        }
        self.basic
            .identity(identity, extensions)
            .map_err(Error::Basic)
    }

    fn valid_successor(
        &self,
        predecessor: &SigningIdentity,
        successor: &SigningIdentity,
        extensions: &ExtensionList,
    ) -> Result<bool, Error> {
        if is_x509(predecessor) {
            return self
                .x509
                .valid_successor(predecessor, successor, extensions)
                .map_err(Error::X509);
        }
        self.basic
            .valid_successor(predecessor, successor, extensions)
            .map_err(Error::Basic)
    }

    fn supported_types(&self) -> Vec<CredentialType> {
        let mut types = self.basic.supported_types();
        types.extend(self.x509.supported_types());
        types
    }
}
