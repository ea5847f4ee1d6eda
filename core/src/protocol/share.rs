//! What two peers say to each other beside the operations: what one shows of its configuration, and requests to change
//! the other's. Both directions are alike.

use crate::config::{Applied, Change, Object, Refusal, RefusedShare, Resources, SharedRepo, Shown};
use crate::model::ConfigModno;

/// One frame of the `Sync` stream that is not about operations; needs the capability `config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Share {
    /// What the sender lets the receiver see of its configuration, whole; replaces what it showed before.
    Config(Shown),
    /// Which repositories and plans the sender lets the receiver know of, whole; replaces what it named before.
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
    /// Change the configuration, which must still be the one that the change was made for.
    Config(Change),
    /// Hub to host: these are all the repositories that the sender shares with the receiver now.
    Shared(Vec<SharedRepo>),
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
        modno: ConfigModno,
    },
    /// Everything was so already.
    Unchanged,
    /// The change was made for another configuration than the present one; nothing happened.
    Stale {
        /// The present one's number.
        modno: ConfigModno,
    },
    /// A rule forbids it; nothing happened.
    Refused(Refused),
    /// The offer of shared repositories: all but these were taken.
    Taken {
        /// How many of the offer are here now.
        taken: u32,
        /// Those that are not.
        refused: Vec<Refused>,
    },
}

/// Which rule forbids it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The rule's name.
    pub rule: String,
    /// What it is about, such as `repository "nas"`; empty when that is no single thing.
    pub object: String,
    /// What is forbidden and what to do next, in a sentence.
    pub reason: String,
}

impl From<Result<Applied, Refusal>> for Outcome {
    fn from(judged: Result<Applied, Refusal>) -> Self {
        match judged {
            Ok(applied) if applied.touched.is_empty() => Self::Unchanged,
            Ok(applied) => Self::Applied { modno: applied.config.modno() },
            Err(Refusal::Stale { current, .. }) => Self::Stale { modno: current },
            Err(refusal) => Self::Refused(Refused {
                rule: refusal.rule().to_owned(),
                object: refusal.object().as_ref().map(Object::to_string).unwrap_or_default(),
                reason: refusal.to_string(),
            }),
        }
    }
}

impl From<&RefusedShare> for Refused {
    fn from(refused: &RefusedShare) -> Self {
        Self {
            rule: refused.rule.name().to_owned(),
            object: Object::Repo(refused.id.clone()).to_string(),
            reason: refused.to_string(),
        }
    }
}
