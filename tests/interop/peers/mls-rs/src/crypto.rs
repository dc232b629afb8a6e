//! The library's OpenSSL provider, except that signatures by [`external_signer`] are requested on standard
//! output.

use std::{error, fmt};

use mls_rs::{
    crypto::{
        HpkeCiphertext, HpkePsk, HpkePublicKey, HpkeSecretKey, SignaturePublicKey,
        SignatureSecretKey,
    },
    error::IntoAnyError,
    CipherSuite, CipherSuiteProvider, CryptoProvider,
};
use mls_rs_crypto_openssl::{OpensslCryptoError, OpensslCryptoProvider};
use zeroize::Zeroizing;

use crate::protocol;

/// Stands for a signature key that is outside. It cannot be a key of a suite: each of those has a fixed
/// length, and this has another.
const EXTERNAL: &[u8] = b"signs elsewhere";

pub fn external_signer() -> SignatureSecretKey {
    EXTERNAL.to_vec().into()
}

#[derive(Debug)]
pub enum Error {
    Library(OpensslCryptoError),
    Signer(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library(e) => e.fmt(f),
            Self::Signer(e) => write!(f, "the external signer: {e}"),
        }
    }
}

impl error::Error for Error {}

impl IntoAnyError for Error {
    fn into_dyn_error(self) -> Result<Box<dyn error::Error + Send + Sync>, Self> {
        Ok(self.into())
    }
}

impl From<OpensslCryptoError> for Error {
    fn from(e: OpensslCryptoError) -> Self {
        Self::Library(e)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Provider(OpensslCryptoProvider);

type LibrarySuite = <OpensslCryptoProvider as CryptoProvider>::CipherSuiteProvider;

impl CryptoProvider for Provider {
    type CipherSuiteProvider = Suite;

    fn supported_cipher_suites(&self) -> Vec<CipherSuite> {
        let mut suites = self.0.supported_cipher_suites();
        suites.retain(|suite| self.0.cipher_suite_provider(*suite).is_some());
        suites
    }

    fn cipher_suite_provider(&self, suite: CipherSuite) -> Option<Suite> {
        self.0.cipher_suite_provider(suite).map(Suite)
    }
}

#[derive(Clone)]
pub struct Suite(LibrarySuite);

impl CipherSuiteProvider for Suite {
    type Error = Error;
    type HpkeContextS = <LibrarySuite as CipherSuiteProvider>::HpkeContextS;
    type HpkeContextR = <LibrarySuite as CipherSuiteProvider>::HpkeContextR;

    /// `data` is an encoded SignContent: the library has added the label.
    fn sign(&self, key: &SignatureSecretKey, data: &[u8]) -> Result<Vec<u8>, Error> {
        if key.as_ref() == EXTERNAL {
            return protocol::ask_for_signature(data).map_err(Error::Signer);
        }
        Ok(self.0.sign(key, data)?)
    }

    // Everything else is the library's.

    fn cipher_suite(&self) -> CipherSuite {
        self.0.cipher_suite()
    }

    fn hash(&self, data: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.hash(data)?)
    }

    fn mac(&self, key: &[u8], data: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.mac(key, data)?)
    }

    fn aead_seal(
        &self,
        key: &[u8],
        data: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Vec<u8>, Error> {
        Ok(self.0.aead_seal(key, data, aad, nonce)?)
    }

    fn aead_open(
        &self,
        key: &[u8],
        ciphertext: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        Ok(self.0.aead_open(key, ciphertext, aad, nonce)?)
    }

    fn aead_key_size(&self) -> usize {
        self.0.aead_key_size()
    }

    fn aead_nonce_size(&self) -> usize {
        self.0.aead_nonce_size()
    }

    fn kdf_extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        Ok(self.0.kdf_extract(salt, ikm)?)
    }

    fn kdf_expand(&self, prk: &[u8], info: &[u8], len: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
        Ok(self.0.kdf_expand(prk, info, len)?)
    }

    fn kdf_extract_size(&self) -> usize {
        self.0.kdf_extract_size()
    }

    fn hpke_seal(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
    ) -> Result<HpkeCiphertext, Error> {
        Ok(self.0.hpke_seal(remote_key, info, aad, pt)?)
    }

    fn hpke_seal_psk(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
        psk: HpkePsk<'_>,
    ) -> Result<HpkeCiphertext, Error> {
        Ok(self.0.hpke_seal_psk(remote_key, info, aad, pt, psk)?)
    }

    fn hpke_open(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        Ok(self
            .0
            .hpke_open(ciphertext, local_secret, local_public, info, aad)?)
    }

    fn hpke_open_psk(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        psk: HpkePsk<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        Ok(self
            .0
            .hpke_open_psk(ciphertext, local_secret, local_public, info, aad, psk)?)
    }

    fn hpke_setup_s(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
    ) -> Result<(Vec<u8>, Self::HpkeContextS), Error> {
        Ok(self.0.hpke_setup_s(remote_key, info)?)
    }

    fn hpke_setup_r(
        &self,
        kem_output: &[u8],
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
    ) -> Result<Self::HpkeContextR, Error> {
        Ok(self
            .0
            .hpke_setup_r(kem_output, local_secret, local_public, info)?)
    }

    fn kem_derive(&self, ikm: &[u8]) -> Result<(HpkeSecretKey, HpkePublicKey), Error> {
        Ok(self.0.kem_derive(ikm)?)
    }

    fn kem_generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey), Error> {
        Ok(self.0.kem_generate()?)
    }

    fn kem_public_key_validate(&self, key: &HpkePublicKey) -> Result<(), Error> {
        Ok(self.0.kem_public_key_validate(key)?)
    }

    fn random_bytes(&self, out: &mut [u8]) -> Result<(), Error> {
        Ok(self.0.random_bytes(out)?)
    }

    fn signature_key_generate(&self) -> Result<(SignatureSecretKey, SignaturePublicKey), Error> {
        Ok(self.0.signature_key_generate()?)
    }

    fn signature_key_derive_public(
        &self,
        secret_key: &SignatureSecretKey,
    ) -> Result<SignaturePublicKey, Error> {
        Ok(self.0.signature_key_derive_public(secret_key)?)
    }

    fn verify(
        &self,
        public_key: &SignaturePublicKey,
        signature: &[u8],
        data: &[u8],
    ) -> Result<(), Error> {
        Ok(self.0.verify(public_key, signature, data)?)
    }
}
