//! From every domain error to the one failure that callers see: exhaustive, so that a new error cannot be forgotten.

use opmesh_core::permission::GrantFault;

use super::error::{Failure, Reason};
use super::socket::SocketError;
use super::tcp::AdminListenError;
use crate::config::ConfigError;
use crate::identity::IdentityError;
use crate::node::{InitError, LockError, NodeError, RotationError, ServeFileError};
use crate::pairing::TokenFault;
use crate::places::PlacesError;
use crate::store::{AppendError, PeerError, Refused, StoreError};
use crate::transport::{AddressFault, ListenError};

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let reason = match &error {
            StoreError::Missing { .. } => Reason::NotInitialized,
            StoreError::OtherIdentity { .. } => Reason::OtherIdentity,
            StoreError::UnknownOwner(_) => Reason::UnknownHost,
            StoreError::Exhausted(_) => Reason::Limit,
            StoreError::Exists { .. } => Reason::Exists,
            StoreError::NewerSchema { .. } | StoreError::OldEngine { .. } => Reason::Version,
            StoreError::Fenced | StoreError::UnknownPosition(_) => Reason::Internal,
            StoreError::Stopped { .. }
            | StoreError::Closed
            | StoreError::NotAStore { .. }
            | StoreError::Unusable { .. }
            | StoreError::DiskFull { .. }
            | StoreError::NotCopied { .. }
            | StoreError::NotABackup { .. }
            | StoreError::BadValue { .. }
            | StoreError::Engine { .. } => Reason::Store,
        };
        Self::new(reason, error)
    }
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        let reason = match error {
            PeerError::Store(store) => return store.into(),
            PeerError::Unknown(_) => Reason::UnknownPeer,
            PeerError::Ambiguous { .. } => Reason::Ambiguous,
            PeerError::NameTaken(_) => Reason::NameTaken,
            PeerError::Exists { .. } => Reason::Exists,
            PeerError::OwnKey(_) => Reason::OwnKey,
            PeerError::OtherKey { .. } => Reason::OtherIdentity,
            PeerError::Grants(_) => Reason::Grant,
            PeerError::NoSuchToken(_) => Reason::UnknownToken,
            PeerError::StillAllowed { .. } => Reason::StillAllowed,
            PeerError::NothingToResolve(_) | PeerError::IsRetired(_) | PeerError::NotAdopted(_) => {
                Reason::NothingToDo
            }
        };
        Self::new(reason, error)
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        let reason = match error.reason {
            Refused::Store(store) => return store.into(),
            Refused::NoSuchOperation(_) => Reason::UnknownOperation,
            Refused::NoSuchFlow(_) | Refused::Fixed { .. } | Refused::Edit(_) => Reason::InvalidArgument,
            Refused::Stale { .. } => Reason::Stale,
            Refused::Damaged { .. } => Reason::Store,
        };
        Self::new(reason, error.reason)
    }
}

impl From<GrantFault> for Failure {
    fn from(fault: GrantFault) -> Self {
        Self::new(Reason::Grant, fault)
    }
}

impl From<AddressFault> for Failure {
    fn from(fault: AddressFault) -> Self {
        Self::new(Reason::InvalidArgument, fault)
    }
}

impl From<TokenFault> for Failure {
    fn from(fault: TokenFault) -> Self {
        Self::new(Reason::InvalidArgument, fault)
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        let reason = match &error {
            IdentityError::Missing { .. } => Reason::NotInitialized,
            IdentityError::Exists { .. } => Reason::Exists,
            IdentityError::Mode { .. }
            | IdentityError::Owner { .. }
            | IdentityError::NotAFile { .. }
            | IdentityError::Malformed { .. }
            | IdentityError::Io { .. }
            | IdentityError::Succession(_)
            | IdentityError::Randomness => Reason::Identity,
        };
        Self::new(reason, error)
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        match &error {
            LockError::Held { .. } => Self::new(Reason::Locked, error)
                .hint("wait until it has ended, or stop it; a running daemon answers on its admin socket"),
            LockError::Io { .. } => Self::new(Reason::Io, error),
        }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::NotInitialized { path } => {
                Self::new(Reason::NotInitialized, format!("{} is not initialized", path.display()))
                    .hint("run `opmesh init` first")
            }
            NodeError::Identity(error) => error.into(),
            NodeError::Lock(error) => error.into(),
            NodeError::Store(error) => error.into(),
            NodeError::Name(error) => error.into(),
        }
    }
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        match error {
            InitError::Foreign { .. } | InitError::Initialized { .. } => Self::new(Reason::Exists, error),
            InitError::NoKey { .. } => Self::new(Reason::Identity, error),
            InitError::NoName(_) => Self::new(Reason::InvalidArgument, error),
            InitError::Io { .. } => Self::new(Reason::Io, error),
            InitError::Identity(error) => error.into(),
            InitError::Lock(error) => error.into(),
            InitError::Store(error) => error.into(),
        }
    }
}

impl From<RotationError> for Failure {
    fn from(error: RotationError) -> Self {
        match error {
            RotationError::None => Self::new(Reason::NothingToDo, error),
            RotationError::Identity(error) => error.into(),
            RotationError::Store(error) => error.into(),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Reason::Config, error)
    }
}

impl From<PlacesError> for Failure {
    fn from(error: PlacesError) -> Self {
        Self::new(Reason::InvalidArgument, error)
    }
}

impl From<ServeFileError> for Failure {
    fn from(error: ServeFileError) -> Self {
        Self::new(Reason::Io, error)
    }
}

impl From<SocketError> for Failure {
    fn from(error: SocketError) -> Self {
        let reason = match &error {
            SocketError::TooLong { .. } => Reason::Limit,
            SocketError::NoGroup { .. } => Reason::Config,
            SocketError::InUse { .. } => Reason::Locked,
            SocketError::NotASocket { .. } | SocketError::Io { .. } => Reason::Io,
        };
        Self::new(reason, error)
    }
}

impl From<AdminListenError> for Failure {
    fn from(error: AdminListenError) -> Self {
        let reason = match &error {
            AdminListenError::Bind { .. } => Reason::Io,
            AdminListenError::File { .. } => Reason::Config,
            AdminListenError::Tls(_) => Reason::Identity,
        };
        Self::new(reason, error)
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        let reason = match &error {
            ListenError::Bind { .. } => Reason::Io,
            ListenError::Tls(_) => Reason::Identity,
        };
        Self::new(reason, error)
    }
}
