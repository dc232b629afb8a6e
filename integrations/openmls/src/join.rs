//! Joining by a Welcome that the service opens.

use std::sync::Arc;

use openmls::prelude::{
    KeyPackageBundle, MlsGroup, MlsGroupJoinConfig, OpenMlsCrypto, OpenMlsRand, RatchetTreeIn,
    StagedWelcome, Welcome, WelcomeError,
};
use openmls_traits::{
    storage::{StorageProvider, CURRENT_VERSION},
    OpenMlsProvider,
};

use crate::{
    crypto::Opened, provider::Opening, Error, Handle, KeyPackageError, PreSharedKey, Reason,
    Service, ServiceProvider, State,
};

/// An opened Welcome. It shows who is in the group before the group is joined.
#[derive(Debug)]
#[must_use = "join the group, or release the reservation"]
pub struct Staged {
    /// The group as it would be joined.
    pub welcome: StagedWelcome,
    /// The key package that opened the Welcome.
    pub reservation: Reservation,
}

impl Staged {
    /// Joins the group. If OpenMLS cannot, the key package's reservation is released.
    pub fn into_group<C, S>(
        self,
        provider: &ServiceProvider<C, S>,
    ) -> Result<Joined, JoinError<S::Error>>
    where
        C: OpenMlsCrypto + OpenMlsRand,
        S: StorageProvider<CURRENT_VERSION>,
    {
        match self.welcome.into_group(provider) {
            Ok(group) => Ok(Joined {
                group,
                reservation: self.reservation,
            }),
            Err(error) => Err(self.reservation.refused(error)),
        }
    }
}

/// A member that has joined, with the reservation that must be confirmed.
#[derive(Debug)]
#[must_use = "confirm the reservation"]
pub struct Joined {
    /// The group, which the provider's storage already has.
    pub group: MlsGroup,
    /// The reservation of the key package that joined it.
    pub reservation: Reservation,
}

/// A key package that opened a Welcome and is reserved until the outcome is confirmed or released.
#[derive(Debug)]
#[must_use = "confirm or release it"]
pub struct Reservation {
    service: Arc<Service>,
    opened: Opened,
}

impl Reservation {
    /// The KeyPackageRef of the key package.
    pub fn reference(&self) -> &[u8] {
        &self.opened.reference
    }

    /// The digest by which the service knows the Welcome.
    pub fn welcome_digest(&self) -> &[u8] {
        &self.opened.digest
    }

    /// When the reservation ends by itself, a time of RFC 3339. Then the key package is as it was
    /// before, and can open the same Welcome or another one.
    pub fn until(&self) -> &str {
        &self.opened.until
    }

    /// Confirms that the member exists; call it once the group is durable. The private init key is
    /// erased. After an error that [is passing](Error::is_passing), the service may or may not have
    /// received the request; it may be repeated.
    pub fn confirm(&self) -> Result<State, Error> {
        let reference = self.reference();
        let answer = self
            .service
            .confirm_welcome(reference, self.welcome_digest());
        match answer {
            Err(e) if e.reason() == Some(Reason::State) => match self.service.get(reference) {
                Ok(record) if record.state == State::Consumed => Ok(State::Consumed),
                _ => Err(e),
            },
            other => other,
        }
    }

    /// Reports that there will be no such member: the key package is as it was before.
    pub fn release(&self) -> Result<State, Error> {
        self.service
            .release_welcome(self.reference(), self.welcome_digest())
    }

    /// Releases the key package of a group that OpenMLS has refused.
    fn refused<E>(&self, error: WelcomeError<E>) -> JoinError<E> {
        JoinError::Refused {
            error: Box::new(error),
            unreleased: self.release().err(),
        }
    }
}

/// Why there is no member.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError<E> {
    /// None of the Welcome's key packages belongs to the caller.
    #[error("the Welcome is not for a key package of the caller")]
    NotForUs,
    /// The key package cannot be used.
    #[error(transparent)]
    KeyPackage(#[from] KeyPackageError<E>),
    /// The service did not decrypt the GroupSecrets.
    #[error("open the Welcome: {0}")]
    NotOpened(#[source] Error),
    /// OpenMLS refuses the group. The key package is released; otherwise, the error says why not.
    #[error("join: {error}{}", still(.unreleased))]
    Refused {
        /// Why it is refused.
        #[source]
        error: Box<WelcomeError<E>>,
        /// Why the key package is still reserved.
        unreleased: Option<Error>,
    },
    /// The storage already has a group with that id. If it is this Welcome's, of a run that ended
    /// before it confirmed, confirm the reservation; otherwise release it.
    #[error("join: a group of that id is stored already")]
    GroupExists(Reservation),
}

fn still(unreleased: &Option<Error>) -> String {
    unreleased
        .as_ref()
        .map(|error| format!("; the key package is still reserved: {error}"))
        .unwrap_or_default()
}

/// Opens a Welcome for a key package of the service. The key package need not be stored: if the
/// storage has no key package that the Welcome names, this function asks the service for them.
///
/// `psks` are the external pre-shared keys that the group uses: the service opens the whole Welcome
/// before it decrypts, and needs them for that. OpenMLS takes them from its storage.
///
/// After an error, the service's key package is as it was before, except as [`JoinError`] says.
/// OpenMLS has then deleted the stored key package; the next attempt asks the service for it.
pub fn stage<C, S>(
    provider: &ServiceProvider<C, S>,
    config: &MlsGroupJoinConfig,
    welcome: Welcome,
    ratchet_tree: Option<RatchetTreeIn>,
    psks: &[PreSharedKey],
) -> Result<Staged, JoinError<S::Error>>
where
    C: OpenMlsCrypto + OpenMlsRand,
    S: StorageProvider<CURRENT_VERSION>,
{
    find_key_package(provider, &welcome)?;
    let opening = Opening::new(provider, psks);
    let staged = StagedWelcome::new_from_welcome(&opening, config, welcome, ratchet_tree);
    let reservation = opening.crypto().take_opened().map(|opened| Reservation {
        service: provider.service().clone(),
        opened,
    });
    match (staged, reservation) {
        (Ok(welcome), Some(reservation)) => Ok(Staged {
            welcome,
            reservation,
        }),
        (Ok(_), None) => Err(JoinError::NotForUs),
        (Err(WelcomeError::GroupAlreadyExists), Some(reservation)) => {
            Err(JoinError::GroupExists(reservation))
        }
        (Err(error), Some(reservation)) => Err(reservation.refused(error)),
        (Err(error), None) => Err(match opening.crypto().take_error() {
            Some(why) => JoinError::NotOpened(why),
            None => JoinError::Refused {
                error: Box::new(error),
                unreleased: None,
            },
        }),
    }
}

/// Joins a group: [`stage`] and [`Staged::into_group`].
pub fn join<C, S>(
    provider: &ServiceProvider<C, S>,
    config: &MlsGroupJoinConfig,
    welcome: Welcome,
    ratchet_tree: Option<RatchetTreeIn>,
    psks: &[PreSharedKey],
) -> Result<Joined, JoinError<S::Error>>
where
    C: OpenMlsCrypto + OpenMlsRand,
    S: StorageProvider<CURRENT_VERSION>,
{
    stage(provider, config, welcome, ratchet_tree, psks)?.into_group(provider)
}

/// Makes sure that the storage has a key package that the Welcome is for.
fn find_key_package<C, S>(
    provider: &ServiceProvider<C, S>,
    welcome: &Welcome,
) -> Result<(), JoinError<S::Error>>
where
    C: OpenMlsCrypto + OpenMlsRand,
    S: StorageProvider<CURRENT_VERSION>,
{
    let references = || welcome.secrets().iter().map(|secrets| secrets.new_member());
    for reference in references() {
        let stored: Option<KeyPackageBundle> = provider
            .storage()
            .key_package(&reference)
            .map_err(KeyPackageError::Storage)?;
        // OpenMLS takes the first one in storage. If that has private keys of its own, it is not
        // the service's.
        if let Some(bundle) = stored {
            return Handle::parse(bundle.init_private_key())
                .map(|_| ())
                .ok_or(JoinError::NotForUs);
        }
    }
    for reference in references() {
        match provider.load_key_package(reference.as_slice()) {
            Ok(_) => return Ok(()),
            Err(KeyPackageError::Service(e)) if is_anothers(&e) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(JoinError::NotForUs)
}

/// Reports whether the service says that a key package does not belong to the caller.
fn is_anothers(e: &Error) -> bool {
    matches!(e.reason(), Some(Reason::NotGranted | Reason::NotFound))
}
