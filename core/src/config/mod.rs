//! Federated config: an instance's repositories and plans, who sees them, who may change them, and what is shared.
//!
//! Each instance owns its config; what others may do with it is decided here and nowhere else. [`shown`] is what a peer
//! sees, [`apply`] what becomes of a change, [`shared_for`] and [`take_shared`] the two ends of sharing. Permissions are
//! judged by the same lists as operations, by [`crate::permission::Grants::allows`]. Called by the store, within the
//! transaction that keeps the result, and by sessions for what they send. Nothing here runs a backup: schedules,
//! hooks and flags are words for whoever does.

mod allowed;
mod change;
mod check;
mod model;
mod secret;
mod sharing;
mod shown;

pub use allowed::{Allowed, Executable};
pub use change::{Applied, Authority, Change, How, PutRepo, Refusal, Touched, apply};
pub use check::{
    Fault, MAX_CONFIG_BYTES, MAX_ENTRIES, MAX_ID_BYTES, MAX_PLANS, MAX_REPOS, MAX_RETENTION,
    MAX_SECRET_BYTES, MAX_TEXT_BYTES, MAX_WORDS_BYTES, Object, Problem, weight_of_plan, weight_of_repo,
};
pub use model::{
    Config, EnvVar, Guid, GuidFault, GuidSeed, Hook, Origin, Plan, Repo, RepoSettings, Retention, SharedRepo,
    Standing,
};
pub use secret::{HIDDEN, Secret, Uri};
pub use sharing::{RefusedShare, ShareRule, Taken, shared_for, take_shared, withdraw};
pub use shown::{ListedPlan, ListedRepo, Resources, Shown, resources, shown};
