//! The messages beside the operations, both ways between frame and value. Documents stay the bytes that they are:
//! whoever stores or shows one reads it.

use opmesh_core::model::Modno;
use opmesh_core::protocol::{
    NamedRepo, Outcome, Refused, Request, Resources, Share, Shown, Write, WriteKey, Written,
};

use super::decode::{all, at_most, fixed};
use super::fault::WireFault;
use super::pb::{self, frame::Body};

/// Most repositories and plans together that a Resources names.
pub(super) const RESOURCES: usize = 16_384;
/// The longest id, rule or sentence in bytes.
pub(super) const TEXT_BYTES: usize = 4 * 1024;
/// Most refusals in one Written.
pub(super) const REFUSALS: usize = 1024;

/// The frame's body that says the same.
pub(super) fn body(share: Share) -> Body {
    match share {
        Share::Config(shown) => {
            Body::Config(pb::Config { modno: shown.modno.get(), document: shown.document })
        }
        Share::Resources(resources) => Body::Resources(pb::Resources {
            repos: resources
                .repos
                .into_iter()
                .map(|repo| pb::NamedRepo { id: repo.id, guid: repo.guid })
                .collect(),
            plans: resources.plans,
        }),
        Share::Write(write) => Body::Write(write.into()),
        Share::Written(written) => Body::Written(written.into()),
    }
}

impl TryFrom<pb::Config> for Shown {
    type Error = WireFault;

    fn try_from(shown: pb::Config) -> Result<Self, WireFault> {
        Ok(Self { modno: Modno::new(shown.modno)?, document: shown.document })
    }
}

impl TryFrom<pb::Resources> for Resources {
    type Error = WireFault;

    fn try_from(resources: pb::Resources) -> Result<Self, WireFault> {
        at_most(
            "repositories and plans",
            resources.repos.len().saturating_add(resources.plans.len()),
            RESOURCES,
        )?;
        let repos: Vec<NamedRepo> = all(resources.repos)?;
        let plans = resources.plans;
        plans.iter().try_for_each(|plan| text("plan", plan))?;
        if !repos.is_sorted_by(|a, b| a.id < b.id) {
            return Err(WireFault::TextOrder { what: "repositories" });
        }
        if !plans.is_sorted_by(|a, b| a < b) {
            return Err(WireFault::TextOrder { what: "plans" });
        }
        Ok(Self { repos, plans })
    }
}

impl TryFrom<pb::NamedRepo> for NamedRepo {
    type Error = WireFault;

    fn try_from(repo: pb::NamedRepo) -> Result<Self, WireFault> {
        text("repository", &repo.id)?;
        text("repository guid", &repo.guid)?;
        Ok(Self { id: repo.id, guid: repo.guid })
    }
}

impl TryFrom<pb::Write> for Write {
    type Error = WireFault;

    fn try_from(write: pb::Write) -> Result<Self, WireFault> {
        use pb::write::Request as Word;
        let key = WriteKey(fixed("write.key", &write.key)?);
        let request = match write.request.ok_or(WireFault::Missing { field: "write.request" })? {
            Word::Config(config) => Request::Config { base: Modno::new(config.base)?, change: config.change },
            Word::Shared(shared) => Request::Shared { repos: shared.repos },
        };
        Ok(Self { key, request })
    }
}

impl From<Write> for pb::Write {
    fn from(write: Write) -> Self {
        use pb::write::Request as Word;
        let request = match write.request {
            Request::Config { base, change } => Word::Config(pb::ConfigChange { base: base.get(), change }),
            Request::Shared { repos } => Word::Shared(pb::SharedRepos { repos }),
        };
        Self { key: write.key.0.to_vec(), request: Some(request) }
    }
}

impl TryFrom<pb::Written> for Written {
    type Error = WireFault;

    fn try_from(written: pb::Written) -> Result<Self, WireFault> {
        use pb::written::Result as Word;
        let key = WriteKey(fixed("written.key", &written.key)?);
        let outcome = match written.result.ok_or(WireFault::Missing { field: "written.result" })? {
            Word::Applied(applied) => Outcome::Applied { modno: Modno::new(applied.modno)? },
            Word::Unchanged(pb::Unchanged {}) => Outcome::Unchanged,
            Word::Stale(stale) => Outcome::Stale { modno: Modno::new(stale.modno)? },
            Word::Refused(refused) => Outcome::Refused(refused.try_into()?),
            Word::Taken(taken) => {
                at_most("refusals", taken.refused.len(), REFUSALS)?;
                Outcome::Taken { taken: taken.taken, refused: all(taken.refused)? }
            }
        };
        Ok(Self { key, outcome })
    }
}

impl From<Written> for pb::Written {
    fn from(written: Written) -> Self {
        use pb::written::Result as Word;
        let result = match written.outcome {
            Outcome::Applied { modno } => Word::Applied(pb::Applied { modno: modno.get() }),
            Outcome::Unchanged => Word::Unchanged(pb::Unchanged {}),
            Outcome::Stale { modno } => Word::Stale(pb::Stale { modno: modno.get() }),
            Outcome::Refused(refused) => Word::Refused(refused.into()),
            Outcome::Taken { taken, refused } => {
                Word::Taken(pb::Taken { taken, refused: refused.into_iter().map(Into::into).collect() })
            }
        };
        Self { key: written.key.0.to_vec(), result: Some(result) }
    }
}

impl TryFrom<pb::Refused> for Refused {
    type Error = WireFault;

    fn try_from(refused: pb::Refused) -> Result<Self, WireFault> {
        small("refused.rule", &refused.rule)?;
        small("refused.object", &refused.object)?;
        small("refused.next_step", &refused.next_step)?;
        Ok(Self { rule: refused.rule, object: refused.object, next_step: refused.next_step })
    }
}

impl From<Refused> for pb::Refused {
    fn from(refused: Refused) -> Self {
        Self { rule: refused.rule, object: refused.object, next_step: refused.next_step }
    }
}

/// An id: not empty, not long.
fn text(what: &'static str, text: &str) -> Result<(), WireFault> {
    if text.is_empty() {
        return Err(WireFault::Missing { field: what });
    }
    small(what, text)
}

fn small(what: &'static str, text: &str) -> Result<(), WireFault> {
    if text.len() > TEXT_BYTES {
        return Err(WireFault::TooLarge { what, bytes: text.len(), limit: TEXT_BYTES });
    }
    Ok(())
}
