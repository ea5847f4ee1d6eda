//! What two peers say to each other beside the operations: what one shows of its configuration, and requests to change
//! the other's. Both directions are alike. Documents travel as the bytes that their owner encoded, as records do.

use crate::model::Modno;

/// One frame of the `Sync` stream that is not about operations; needs the capability `config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Share {
    /// What the sender lets the receiver see of its configuration, whole; replaces what it showed before.
    Config(Shown),
    /// What the sender's shared operations may name, whole; replaces what it named before.
    Resources(Resources),
    /// A request that the receiver may refuse.
    Write(Write),
    /// The answer to one.
    Written(Written),
}

impl Share {
    /// The message's name as `docs/protocol.md` writes it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Config(_) => "Config",
            Self::Resources(_) => "Resources",
            Self::Write(_) => "Write",
            Self::Written(_) => "Written",
        }
    }
}

/// A configuration as its owner shows it to one peer: filtered, and without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The owner's, of its whole configuration: the base that a change must name.
    pub modno: Modno,
    /// An encoded `opmesh.config.v1.Config`.
    pub document: Vec<u8>,
}

/// Repositories and plans by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Ascending by id.
    pub repos: Vec<NamedRepo>,
    /// Ids, ascending.
    pub plans: Vec<String>,
}

/// A repository by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedRepo {
    /// What its owner calls it.
    pub id: String,
    /// What it is, wherever it is listed.
    pub guid: String,
}

/// Names a request; drawn at random by whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriteKey(pub [u8; 16]);

/// Asks the receiver to change something of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The same key again in one session is the same request, and gets the same answer.
    pub key: WriteKey,
    /// What is asked for.
    pub request: Request,
}

/// What a Write asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Change the configuration.
    Config {
        /// The configuration that the change was made for; any other is stale.
        base: Modno,
        /// An encoded `opmesh.config.v1.Change`.
        change: Vec<u8>,
    },
    /// These are all the repositories that the sender shares with the receiver now.
    Shared {
        /// An encoded `opmesh.config.v1.Config` with repositories only.
        repos: Vec<u8>,
    },
}

/// The answer to a Write: the effect is durable, or there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The request's.
    pub key: WriteKey,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a Write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was made.
    Applied {
        /// The configuration's number now.
        modno: Modno,
    },
    /// Everything was so already.
    Unchanged,
    /// The base is not the present configuration; nothing happened.
    Stale {
        /// The present one's number.
        modno: Modno,
    },
    /// A rule forbids it; nothing happened.
    Refused(Refused),
    /// Shared repositories: all but these were taken.
    Taken {
        /// How many are shared now.
        taken: u32,
        /// Those that were not.
        refused: Vec<Refused>,
    },
}

/// Which rule forbids what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The rule's name.
    pub rule: String,
    /// What it forbids: `repo ID` or `plan ID`.
    pub object: String,
    /// What an operator can do about it.
    pub next_step: String,
}
