//! The messages beside the operations, both ways between frame and value. The documents in them are `config_doc`'s.

use opmesh_core::model::ConfigModno;
use opmesh_core::protocol::{Outcome, Refused, Request, Share, Write, WriteKey, Written};

use super::decode::{all, at_most, fixed};
use super::fault::WireFault;
use super::pb::{self, frame::Body};
use crate::config_doc::{self, DocumentFault};

/// The longest text of a refusal in bytes; a reason may name many objects.
pub(super) const TEXT_BYTES: usize = 4 * 1024;
/// Most refusals in one Written.
pub(super) const REFUSALS: usize = 1_000;

const _: () = assert!(REFUSALS >= opmesh_core::config::MAX_REPOS, "every offered repository may be refused");

/// The frame's body that says the same.
pub(super) fn body(share: Share) -> Body {
    match share {
        Share::Config(shown) => Body::Config(pb::Config { document: config_doc::encode_shown(&shown) }),
        Share::Resources(resources) => {
            Body::Resources(pb::Resources { document: config_doc::encode_resources(&resources) })
        }
        Share::Write(write) => Body::Write(write.into()),
        Share::Written(written) => Body::Written(written.into()),
    }
}

impl TryFrom<pb::Config> for Share {
    type Error = WireFault;

    fn try_from(config: pb::Config) -> Result<Self, WireFault> {
        Ok(Self::Config(config_doc::decode_shown(&config.document).map_err(in_message("Config"))?))
    }
}

impl TryFrom<pb::Resources> for Share {
    type Error = WireFault;

    fn try_from(resources: pb::Resources) -> Result<Self, WireFault> {
        let read = config_doc::decode_resources(&resources.document);
        Ok(Self::Resources(read.map_err(in_message("Resources"))?))
    }
}

impl TryFrom<pb::Write> for Share {
    type Error = WireFault;

    fn try_from(write: pb::Write) -> Result<Self, WireFault> {
        use pb::write::Request as Word;
        let key = WriteKey(fixed("write.key", &write.key)?);
        let request = match write.request.ok_or(WireFault::Missing { field: "write.request" })? {
            Word::Config(config) => {
                let base = ConfigModno::new(config.base)?;
                let change = config_doc::decode_change(base, &config.document);
                Request::Config(change.map_err(in_message("Write"))?)
            }
            Word::Shared(shared) => {
                Request::Shared(config_doc::decode_shared(&shared.document).map_err(in_message("Write"))?)
            }
        };
        Ok(Self::Write(Write { key, request }))
    }
}

impl From<Write> for pb::Write {
    fn from(write: Write) -> Self {
        use pb::write::Request as Word;
        let request = match write.request {
            Request::Config(change) => Word::Config(pb::ConfigChange {
                base: change.base.get(),
                document: config_doc::encode_change(&change),
            }),
            Request::Shared(repos) => {
                Word::Shared(pb::SharedRepos { document: config_doc::encode_shared(&repos) })
            }
        };
        Self { key: write.key.0.to_vec(), request: Some(request) }
    }
}

impl TryFrom<pb::Written> for Share {
    type Error = WireFault;

    fn try_from(written: pb::Written) -> Result<Self, WireFault> {
        use pb::written::Result as Word;
        let key = WriteKey(fixed("written.key", &written.key)?);
        let outcome = match written.result.ok_or(WireFault::Missing { field: "written.result" })? {
            Word::Applied(applied) => Outcome::Applied { modno: ConfigModno::new(applied.modno)? },
            Word::Unchanged(pb::Unchanged {}) => Outcome::Unchanged,
            Word::Stale(stale) => Outcome::Stale { modno: ConfigModno::new(stale.modno)? },
            Word::Refused(refused) => Outcome::Refused(refused.try_into()?),
            Word::Taken(taken) => {
                at_most("refusals", taken.refused.len(), REFUSALS)?;
                Outcome::Taken { taken: taken.taken, refused: all(taken.refused)? }
            }
        };
        Ok(Self::Written(Written { key, outcome }))
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
        let pb::Refused { rule, object, reason } = refused;
        for (what, text) in
            [("refused.rule", &rule), ("refused.object", &object), ("refused.reason", &reason)]
        {
            if text.len() > TEXT_BYTES {
                return Err(WireFault::TooLarge { what, bytes: text.len(), limit: TEXT_BYTES });
            }
        }
        Ok(Self { rule, object, reason })
    }
}

impl From<Refused> for pb::Refused {
    /// Shortens what the receiver would refuse.
    fn from(refused: Refused) -> Self {
        let [rule, object, reason] = [refused.rule, refused.object, refused.reason].map(shortened);
        Self { rule, object, reason }
    }
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    text
}

fn in_message(message: &'static str) -> impl Fn(DocumentFault) -> WireFault {
    move |fault| WireFault::Document { message, fault }
}
