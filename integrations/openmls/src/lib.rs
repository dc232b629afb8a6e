//! OpenMLS members whose private keys stay with `hsm-kp serve`.
//!
//! A key package of hsm-kp has three private keys: the signature key, which never leaves the
//! token, and those of the init key and of the leaf, which the token seals. A member that this
//! crate makes of it has none of them. OpenMLS gets
//!
//! - a [`ServiceSigner`], which lets the service sign (`SignWithLabel`);
//! - a [`ServiceProvider`], whose [`ServiceCrypto`] does everything in software except decrypting
//!   with the key package's private keys: it recognizes the [`Handle`]s that replace them and asks
//!   the service (`DecryptWithLabel`).
//!
//! ```no_run
//! use std::sync::Arc;
//! use hsm_kp_openmls::{join, Service, ServiceProvider, ServiceSigner};
//! use openmls::prelude::{Ciphersuite, MlsGroupJoinConfig, Welcome};
//!
//! # fn received() -> Welcome { unimplemented!() }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = Arc::new(Service::unix("/run/hsm-kp/hsm-kp.sock"));
//! let provider = ServiceProvider::new(service.clone());
//! let suite = Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256;
//! let signer = ServiceSigner::new(service, "alice", suite.into());
//!
//! let joined = join(&provider, &MlsGroupJoinConfig::default(), received(), None, &[])?;
//! joined.reservation.confirm()?; // the group is stored: the init key is erased
//! let mut group = joined.group;
//! let message = group.create_message(&provider, &signer, b"hello")?;
//! # Ok(())
//! # }
//! ```
//!
//! OpenMLS itself keeps the secrets of the group and the HPKE private keys that it derives from
//! them: those of parent nodes, and its leaf's once the member has made a commit with a path or an
//! update.

mod api;
mod crypto;
mod error;
mod handle;
mod join;
mod key_package;
mod labeled;
mod provider;
mod service;
mod signer;
#[cfg(unix)]
mod transport;

pub use api::{Decrypted, KeyPackageRecord, PreSharedKey, State};
pub use crypto::ServiceCrypto;
pub use error::{Error, Reason, Refusal};
pub use handle::{Handle, PrivateKeyOf};
pub use join::{join, stage, JoinError, Joined, Reservation, Staged};
pub use key_package::{validated, KeyPackageError};
pub use provider::ServiceProvider;
pub use service::{Service, Tls};
pub use signer::ServiceSigner;
