//! A Welcome, opened through the service.

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

/// A Welcome that was opened: who is in the group can be seen before it is joined.
#[derive(Debug)]
#[must_use = "it is to be joined, or its reservation released"]
pub struct Staged {
    /// The group as it would be joined.
    pub welcome: StagedWelcome,
    /// The key package that opened the Welcome.
    pub reservation: Reservation,
}

impl Staged {
    /// Joins the group. Where OpenMLS cannot, the key package is released.
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

/// A member that has joined, and what is left to say to the service.
#[derive(Debug)]
#[must_use = "the reservation is to be confirmed"]
pub struct Joined {
    /// The group. It is in the provider's storage already.
    pub group: MlsGroup,
    /// The key package that joined it.
    pub reservation: Reservation,
}

/// A key package whose Welcome was opened, and which waits to hear what became of the member.
#[derive(Debug)]
#[must_use = "it is to be confirmed or released"]
pub struct Reservation {
    service: Arc<Service>,
    opened: Opened,
}

impl Reservation {
    /// The KeyPackageRef of the key package.
    pub fn reference(&self) -> &[u8] {
        &self.opened.reference
    }

    /// The digest that the service knows the Welcome by.
    pub fn welcome_digest(&self) -> &[u8] {
        &self.opened.digest
    }

    /// When the reservation ends by itself, a time of RFC 3339: the key package is as it was
    /// then, and the same Welcome, or another one, opens.
    pub fn until(&self) -> &str {
        &self.opened.until
    }

    /// Says that the member exists, which is once the group is durable: the private init key is
    /// erased. An error that [is passing](Error::is_passing) leaves open whether the service
    /// heard it; it may be said again.
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

    /// Says that there will be no such member: the key package is as it was.
    pub fn release(&self) -> Result<State, Error> {
        self.service
            .release_welcome(self.reference(), self.welcome_digest())
    }

    /// Releases the key package of a group that OpenMLS refuses.
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
    /// None of the Welcome's key packages is the caller's.
    #[error("the Welcome is for none of the caller's key packages")]
    NotForUs,
    /// The key package cannot be used.
    #[error(transparent)]
    KeyPackage(#[from] KeyPackageError<E>),
    /// The service did not decrypt the GroupSecrets.
    #[error("open the Welcome: {0}")]
    NotOpened(#[source] Error),
    /// OpenMLS refuses the group. The key package is released, or the error says why not.
    #[error("join: {error}{}", still(.unreleased))]
    Refused {
        /// Why it is refused.
        #[source]
        error: Box<WelcomeError<E>>,
        /// Why the key package is still reserved.
        unreleased: Option<Error>,
    },
    /// A group of that id is in the storage already. It may be this Welcome's, of a run that ended
    /// before it confirmed: then the reservation is to be confirmed. Else it is to be released.
    #[error("join: a group of that id is stored already")]
    GroupExists(Reservation),
}

fn still(unreleased: &Option<Error>) -> String {
    unreleased
        .as_ref()
        .map(|error| format!("; the key package is still reserved: {error}"))
        .unwrap_or_default()
}

/// Opens a Welcome for a key package of the service. The key package need not be stored: where the
/// storage has none of those that the Welcome names, the service is asked for them.
///
/// `psks` are the external pre-shared keys that the group uses: the service opens the Welcome
/// whole before it decrypts, and needs them for that. OpenMLS takes them from its storage.
///
/// Where this fails the service's key package is as it was before, but for what
/// [`JoinError`] says. OpenMLS has deleted the stored key package then; the next try asks the service
/// for it.
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

/// Sees to it that the storage has a key package that the Welcome is for.
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
        // OpenMLS takes the first that is stored. With private keys of its own it is not ours.
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

/// Whether the service says that a key package is none of the caller's.
fn is_anothers(e: &Error) -> bool {
    matches!(e.reason(), Some(Reason::NotGranted | Reason::NotFound))
}
