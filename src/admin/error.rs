//! Why an administrative call failed, on its way from the handlers to the command line.
//!
//! A [`Failure`] travels as a gRPC status with three metadata entries and comes out as it went in. The exit code and
//! the status follow from its [`Reason`] by one table; nobody matches texts.

use std::fmt;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

const REASON: &str = "opmesh-reason";
const EXIT: &str = "opmesh-exit";
const HINT: &str = "opmesh-hint-bin";

/// What a command's exit code tells a script. The numbers are a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Ok,
    /// 1.
    Error,
    /// 2.
    Usage,
    /// 3: done in part.
    Partly,
    /// 4: by the peer.
    Refused,
    /// 10: the hub, or a daemon that the command needs.
    Unreachable,
    /// 11: lock or lease held by another.
    Locked,
    /// 12: an identity is not the one expected.
    OtherIdentity,
    /// 20: the check found something.
    Found,
}

impl Exit {
    /// The process's exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Partly => 3,
            Self::Refused => 4,
            Self::Unreachable => 10,
            Self::Locked => 11,
            Self::OtherIdentity => 12,
            Self::Found => 20,
        }
    }
}

/// What kind of failure it was: the `reason` of an error in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// An argument does not mean anything.
    InvalidArgument,
    /// There is no identity and no store here.
    NotInitialized,
    /// No peer has that name.
    UnknownPeer,
    /// No owner of operations has that name.
    UnknownHost,
    /// No operation has that number.
    UnknownOperation,
    /// No pairing token has that number.
    UnknownToken,
    /// Several peers or hosts could be meant.
    Ambiguous,
    /// It is there already.
    Exists,
    /// Another peer has that name.
    NameTaken,
    /// The peer would be this instance itself.
    OwnKey,
    /// The operation belongs to another owner, who alone may change it.
    NotOwn,
    /// The operation has changed since the caller looked.
    Stale,
    /// A grant cannot be changed like this.
    Grant,
    /// There is nothing to decide, release or wait for.
    NothingToDo,
    /// The host is still let in.
    StillAllowed,
    /// A limit was reached.
    Limit,
    /// The reader of a live list fell behind.
    Lagged,
    /// The caller showed no valid credential.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// The peer turned us away.
    Refused,
    /// Nobody answers there.
    Unreachable,
    /// It did not happen in time.
    TimedOut,
    /// Another process holds the data directory.
    Locked,
    /// A key is not the one expected.
    OtherIdentity,
    /// The key file cannot be used.
    Identity,
    /// The configuration file is wrong.
    Config,
    /// The store cannot be used, or stopped.
    Store,
    /// A file or socket could not be used.
    Io,
    /// The daemon does not know this call.
    Version,
    /// A fault of this program.
    Internal,
}

impl Reason {
    /// All reasons with their name in JSON, their exit and their gRPC status.
    pub const ALL: [(Self, &'static str, Exit, Code); 30] = [
        (Self::InvalidArgument, "invalid_argument", Exit::Usage, Code::InvalidArgument),
        (Self::NotInitialized, "not_initialized", Exit::Error, Code::FailedPrecondition),
        (Self::UnknownPeer, "unknown_peer", Exit::Error, Code::NotFound),
        (Self::UnknownHost, "unknown_host", Exit::Error, Code::NotFound),
        (Self::UnknownOperation, "unknown_operation", Exit::Error, Code::NotFound),
        (Self::UnknownToken, "unknown_token", Exit::Error, Code::NotFound),
        (Self::Ambiguous, "ambiguous", Exit::Error, Code::FailedPrecondition),
        (Self::Exists, "exists", Exit::Error, Code::AlreadyExists),
        (Self::NameTaken, "name_taken", Exit::Error, Code::AlreadyExists),
        (Self::OwnKey, "own_key", Exit::Error, Code::FailedPrecondition),
        (Self::NotOwn, "not_own", Exit::Error, Code::FailedPrecondition),
        (Self::Stale, "stale", Exit::Error, Code::Aborted),
        (Self::Grant, "grant", Exit::Usage, Code::InvalidArgument),
        (Self::NothingToDo, "nothing_to_do", Exit::Error, Code::FailedPrecondition),
        (Self::StillAllowed, "still_allowed", Exit::Error, Code::FailedPrecondition),
        (Self::Limit, "limit", Exit::Error, Code::ResourceExhausted),
        (Self::Lagged, "lagged", Exit::Error, Code::DataLoss),
        (Self::Unauthenticated, "unauthenticated", Exit::Error, Code::Unauthenticated),
        (Self::PermissionDenied, "permission_denied", Exit::Error, Code::PermissionDenied),
        (Self::Refused, "refused", Exit::Refused, Code::PermissionDenied),
        (Self::Unreachable, "unreachable", Exit::Unreachable, Code::Unavailable),
        (Self::TimedOut, "timed_out", Exit::Unreachable, Code::DeadlineExceeded),
        (Self::Locked, "locked", Exit::Locked, Code::Unavailable),
        (Self::OtherIdentity, "other_identity", Exit::OtherIdentity, Code::FailedPrecondition),
        (Self::Identity, "identity", Exit::Error, Code::FailedPrecondition),
        (Self::Config, "config", Exit::Error, Code::FailedPrecondition),
        (Self::Store, "store", Exit::Error, Code::Internal),
        (Self::Io, "io", Exit::Error, Code::Internal),
        (Self::Version, "version", Exit::Error, Code::Unimplemented),
        (Self::Internal, "internal", Exit::Error, Code::Internal),
    ];

    fn row(self) -> (&'static str, Exit, Code) {
        let row = Self::ALL.iter().find(|(reason, ..)| *reason == self);
        row.map_or(("internal", Exit::Error, Code::Internal), |(_, name, exit, code)| (*name, *exit, *code))
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// The exit of a command that failed like this.
    pub fn exit(self) -> Exit {
        self.row().1
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, text, ..)| *text == name).map(|(reason, ..)| *reason)
    }

    /// For a status that another program made, such as a connection that broke.
    fn from_code(code: Code) -> Self {
        match code {
            Code::Unavailable | Code::Cancelled | Code::Unknown => Self::Unreachable,
            Code::InvalidArgument => Self::InvalidArgument,
            Code::DeadlineExceeded => Self::TimedOut,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::ResourceExhausted | Code::OutOfRange => Self::Limit,
            Code::Unimplemented => Self::Version,
            _ => Self::Internal,
        }
    }
}

/// A call that failed: what to show, and what a script may rely on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub reason: Reason,
    /// One sentence that names the thing and what was expected.
    pub message: String,
    /// The next step; empty when the message says it.
    pub hint: String,
}

impl Failure {
    /// Without a hint.
    pub fn new(reason: Reason, message: impl fmt::Display) -> Self {
        Self { reason, message: message.to_string(), hint: String::new() }
    }

    /// The same with a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The exit of a command that failed like this.
    pub fn exit(&self) -> Exit {
        self.reason.exit()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let (name, exit, code) = failure.reason.row();
        let mut metadata = MetadataMap::new();
        metadata.insert(REASON, MetadataValue::from_static(name));
        metadata.insert(EXIT, MetadataValue::from(u32::from(exit.code())));
        if !failure.hint.is_empty() {
            metadata.insert_bin(HINT, MetadataValue::from_bytes(failure.hint.as_bytes()));
        }
        Self::with_metadata(code, failure.message, metadata)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let metadata = status.metadata();
        let named = metadata.get(REASON).and_then(|name| name.to_str().ok()).and_then(Reason::from_name);
        let hint = metadata.get_bin(HINT).and_then(|hint| hint.to_bytes().ok());
        let hint = hint.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let reason = named.unwrap_or_else(|| Reason::from_code(status.code()));
        Self { reason, message: status.message().to_owned(), hint }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_failure_comes_out_of_a_status_as_it_went_in() {
        for (reason, name, exit, code) in Reason::ALL {
            let failure = Failure::new(reason, "no such thing: büro").hint("look again\nelsewhere");
            let status = Status::from(failure.clone());
            assert_eq!(status.code(), code);
            assert_eq!(status.metadata().get(REASON).unwrap(), name);
            assert_eq!(status.metadata().get(EXIT).unwrap(), exit.code().to_string().as_str());
            assert_eq!(Failure::from(status), failure);
        }
    }

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|(_, name, ..)| name).collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn a_broken_connection_is_unreachable() {
        let failure = Failure::from(Status::unavailable("broken pipe"));
        assert_eq!((failure.reason, failure.exit().code()), (Reason::Unreachable, 10));
    }
}
