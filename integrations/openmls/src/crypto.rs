//! A crypto provider that lets the service decrypt.

use std::sync::{Arc, Mutex, PoisonError};

use openmls::prelude::{
    tls_codec::SecretVLBytes, AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType,
    HpkeCiphertext, HpkeConfig, HpkeKeyPair, KemOutput, OpenMlsCrypto, SignatureScheme,
};

use crate::{labeled::Labeled, Decrypted, Error, Handle, PreSharedKey, PrivateKeyOf, Service};

/// A crypto provider of OpenMLS that delegates to another one, except that the service opens what
/// is encrypted to the private keys of [`Handle`]s.
///
/// OpenMLS's errors cannot carry why the service did not decrypt: [`take_error`](Self::take_error)
/// returns it.
#[derive(Debug)]
pub struct ServiceCrypto<C> {
    inner: Arc<C>,
    service: Arc<Service>,
    psks: Vec<PreSharedKey>,
    last: Mutex<Last>,
}

/// The outcome of the last decryption with a handle.
#[derive(Debug, Default)]
struct Last {
    opened: Option<Opened>,
    error: Option<Error>,
}

/// A Welcome that the service has opened: the key package is reserved for it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub reference: Vec<u8>,
    pub digest: Vec<u8>,
    pub until: String,
}

impl<C> ServiceCrypto<C> {
    /// Makes a provider that delegates to `inner`.
    pub fn new(inner: Arc<C>, service: Arc<Service>) -> Self {
        ServiceCrypto {
            inner,
            service,
            psks: Vec::new(),
            last: Mutex::default(),
        }
    }

    /// The same provider, with another connection to the same service.
    pub(crate) fn with_service(&self, service: Arc<Service>) -> Self {
        ServiceCrypto::new(self.inner.clone(), service)
    }

    /// The same provider, for opening one Welcome.
    pub(crate) fn for_welcome(&self, psks: &[PreSharedKey]) -> Self {
        ServiceCrypto {
            psks: psks.to_vec(),
            ..self.with_service(self.service.clone())
        }
    }

    /// The provider that does everything else.
    pub fn inner(&self) -> &C {
        &self.inner
    }

    /// The service that decrypts.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Takes the error of the last time that the service did not decrypt. `None` means that there
    /// was no such time, or that the error was taken already.
    pub fn take_error(&self) -> Option<Error> {
        self.last().error.take()
    }

    /// Takes the Welcome that was opened.
    pub(crate) fn take_opened(&self) -> Option<Opened> {
        self.last().opened.take()
    }

    // No code panics while it holds the lock.
    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decrypt(
        &self,
        handle: &Handle,
        input: &HpkeCiphertext,
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let labeled = Labeled::parse(info)?;
        if labeled.label != handle.of.label() {
            return Err(Error::NotMls("label for that key"));
        }
        if !aad.is_empty() {
            return Err(Error::NotMls("additional data"));
        }
        let Decrypted {
            mut plaintext,
            welcome_digest,
            reserved_until,
        } = self.service.decrypt_with_label(
            &handle.reference,
            &labeled.label,
            labeled.content.as_slice(),
            input.kem_output.as_slice(),
            input.ciphertext.as_slice(),
            &self.psks,
        )?;
        if handle.of == PrivateKeyOf::Init {
            self.last().opened = Some(Opened {
                reference: handle.reference.clone(),
                digest: welcome_digest,
                until: reserved_until,
            });
        }
        Ok(std::mem::take(&mut *plaintext))
    }
}

impl<C: OpenMlsCrypto> OpenMlsCrypto for ServiceCrypto<C> {
    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        sk_r: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let Some(handle) = Handle::parse(sk_r) else {
            return self.inner.hpke_open(config, input, sk_r, info, aad);
        };
        self.decrypt(&handle, input, info, aad).map_err(|error| {
            self.last().error = Some(error);
            CryptoError::HpkeDecryptionError
        })
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        enc: &[u8],
        sk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        // MLS exports only with a group's external key, which is never a key package's.
        if Handle::parse(sk_r).is_some() {
            self.last().error = Some(Error::NotMls("use of that key"));
            return Err(CryptoError::ReceiverSetupError);
        }
        self.inner.hpke_setup_receiver_and_export(
            config,
            enc,
            sk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    // All functions from here on delegate to the other provider.

    fn supports(&self, ciphersuite: Ciphersuite) -> Result<(), CryptoError> {
        self.inner.supports(ciphersuite)
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        self.inner.supported_ciphersuites()
    }

    fn hkdf_extract(
        &self,
        hash_type: HashType,
        salt: &[u8],
        ikm: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        self.inner.hkdf_extract(hash_type, salt, ikm)
    }

    fn hmac(
        &self,
        hash_type: HashType,
        key: &[u8],
        message: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        self.inner.hmac(hash_type, key, message)
    }

    fn hkdf_expand(
        &self,
        hash_type: HashType,
        prk: &[u8],
        info: &[u8],
        okm_len: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        self.inner.hkdf_expand(hash_type, prk, info, okm_len)
    }

    fn hash(&self, hash_type: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.inner.hash(hash_type, data)
    }

    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.inner.aead_encrypt(alg, key, data, nonce, aad)
    }

    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        ct_tag: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.inner.aead_decrypt(alg, key, ct_tag, nonce, aad)
    }

    fn signature_key_gen(&self, alg: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        self.inner.signature_key_gen(alg)
    }

    fn verify_signature(
        &self,
        alg: SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.inner.verify_signature(alg, data, pk, signature)
    }

    fn sign(&self, alg: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.inner.sign(alg, data, key)
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        aad: &[u8],
        ptxt: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        self.inner.hpke_seal(config, pk_r, info, aad, ptxt)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        self.inner.hpke_setup_sender_and_export(
            config,
            pk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    fn derive_hpke_keypair(
        &self,
        config: HpkeConfig,
        ikm: &[u8],
    ) -> Result<HpkeKeyPair, CryptoError> {
        self.inner.derive_hpke_keypair(config, ikm)
    }
}
