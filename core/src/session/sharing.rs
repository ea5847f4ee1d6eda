//! Config and requests beside the operations: the same small machine on both sides.
//!
//! It says when to look at what this side shows and sends what is new of it, lets one request of each side be under
//! way at a time, and ends the session of a peer that says too much. What a config is, and whether a request
//! may have an effect, is the store's to decide, inside its transaction. Runs only with a peer that named the
//! capability; called by `transport/driver.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::{Resources, SharedRepo, Shown};
use crate::model::ConfigModno;
use crate::protocol::limits::{
    ANSWERS_KEPT, OWN_SHOWN_A_MINUTE, OWN_WRITES_A_MINUTE, SHOWN_A_MINUTE, WRITES_A_MINUTE, WRITES_WAITING,
};
use crate::protocol::{Request, Share, Violation, Write, WriteKey, Written};

/// What the machine is told.
#[derive(Debug)]
pub enum SharingInput {
    /// A frame arrived.
    Received(Share),
    /// What this side shows may have changed. The first one begins.
    Changed,
    /// The answer to [`SharingOutput::Look`].
    Looked(Look),
    /// The answer to [`SharingOutput::Judge`].
    Judged(Written),
    /// This side wants something of the peer.
    Ask(Write),
    /// Time passed; see [`Sharing::deadline`].
    Tick,
}

/// What the machine wants done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharingOutput {
    /// Put a frame on the stream.
    Send(Share),
    /// Read what this side shows the peer. At most one is outstanding. Performed once an outbound slot is free, so that
    /// what it finds is never older than the room for it.
    Look,
    /// Remember what the peer shows.
    Keep(Kept),
    /// Perform a request of the peer, or refuse it. At most one is outstanding.
    Judge(Write),
    /// What came of a request of this side.
    Answered(Written),
    /// Too many requests of this side wait; this one was not sent.
    Busy(WriteKey),
    /// The peer broke a rule. Nothing follows.
    Refuse(Violation),
}

/// What the peer shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Its config.
    Config(Shown),
    /// What its operations name.
    Resources(Resources),
}

/// What this side shows the peer now, read in one transaction. `None` where there is nothing to say at all, which is
/// not the same as showing that there is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// What the peer may read of the config.
    pub config: Option<Shown>,
    /// What the operations that it may read name.
    pub resources: Option<Resources>,
    /// The repositories that are shared with it.
    pub offer: Option<Offer>,
}

/// The repositories that are shared with the peer now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// For the request that offers them, should they be new.
    pub key: WriteKey,
    /// All of them.
    pub repos: Vec<SharedRepo>,
}

/// The machine.
#[derive(Debug)]
pub struct Sharing {
    look: Looking,
    looks: Pace,
    /// What was shown and offered last.
    config: Option<ConfigModno>,
    resources: Option<Resources>,
    shared: Option<Vec<SharedRepo>>,

    /// Requests of this side: the one that waits for its answer, and those behind it.
    asked: Option<WriteKey>,
    waiting: VecDeque<Write>,
    asks: Pace,

    /// The request of the peer that is being performed, and what became of the latest ones.
    judging: Option<WriteKey>,
    answers: VecDeque<Written>,
    /// What the peer says, by kind.
    configs_heard: Pace,
    resources_heard: Pace,
    writes_heard: Pace,
}

/// Whether this side knows what it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looking {
    UpToDate,
    Due,
    UnderWay,
    /// Something changed since the look that is under way began.
    UnderWayAndDue,
}

impl Default for Sharing {
    fn default() -> Self {
        Self {
            look: Looking::UpToDate,
            looks: Pace::a_minute(OWN_SHOWN_A_MINUTE),
            config: None,
            resources: None,
            shared: None,
            asked: None,
            waiting: VecDeque::new(),
            asks: Pace::a_minute(OWN_WRITES_A_MINUTE),
            judging: None,
            answers: VecDeque::new(),
            configs_heard: Pace::a_minute(SHOWN_A_MINUTE),
            resources_heard: Pace::a_minute(SHOWN_A_MINUTE),
            writes_heard: Pace::a_minute(WRITES_A_MINUTE),
        }
    }
}

impl Sharing {
    /// Call [`Sharing::handle`] with [`SharingInput::Tick`] at this time at the latest.
    pub fn deadline(&self) -> Duration {
        let look = if self.look == Looking::Due { self.looks.next() } else { Duration::MAX };
        let ask = if self.may_ask() { self.asks.next() } else { Duration::MAX };
        look.min(ask)
    }

    /// Takes one input; what it leads to is pushed to `out`, in order.
    pub fn handle(&mut self, now: Duration, input: SharingInput, out: &mut Vec<SharingOutput>) {
        match input {
            SharingInput::Received(share) => {
                if let Err(violation) = self.received(now, share, out) {
                    out.push(SharingOutput::Refuse(violation));
                    return;
                }
            }
            SharingInput::Changed => {
                self.look = match self.look {
                    Looking::UpToDate | Looking::Due => Looking::Due,
                    Looking::UnderWay | Looking::UnderWayAndDue => Looking::UnderWayAndDue,
                };
            }
            SharingInput::Looked(look) => self.looked(look, out),
            SharingInput::Judged(written) => self.judged(written, out),
            SharingInput::Ask(write) => self.ask(write, out),
            SharingInput::Tick => {}
        }
        self.pump(now, out);
    }

    // ---- what the peer says ----

    fn received(
        &mut self,
        now: Duration,
        share: Share,
        out: &mut Vec<SharingOutput>,
    ) -> Result<(), Violation> {
        match share {
            Share::Config(shown) => {
                self.configs_heard.take(now, "Config", SHOWN_A_MINUTE)?;
                out.push(SharingOutput::Keep(Kept::Config(shown)));
            }
            Share::Resources(resources) => {
                self.resources_heard.take(now, "Resources", SHOWN_A_MINUTE)?;
                out.push(SharingOutput::Keep(Kept::Resources(resources)));
            }
            Share::Write(write) => {
                self.writes_heard.take(now, "Write", WRITES_A_MINUTE)?;
                self.write(write, out)?;
            }
            Share::Written(written) => {
                self.asked.take_if(|asked| *asked == written.key).ok_or(Violation::UnaskedAnswer)?;
                out.push(SharingOutput::Answered(written));
            }
        }
        Ok(())
    }

    fn write(&mut self, write: Write, out: &mut Vec<SharingOutput>) -> Result<(), Violation> {
        if self.judging.is_some() {
            return Err(Violation::SecondWrite);
        }
        if let Some(answer) = self.answers.iter().find(|answer| answer.key == write.key) {
            out.push(SharingOutput::Send(Share::Written(answer.clone())));
            return Ok(());
        }
        self.judging = Some(write.key);
        out.push(SharingOutput::Judge(write));
        Ok(())
    }

    fn judged(&mut self, written: Written, out: &mut Vec<SharingOutput>) {
        self.judging = None;
        if self.answers.len() >= ANSWERS_KEPT {
            self.answers.pop_front();
        }
        self.answers.push_back(written.clone());
        out.push(SharingOutput::Send(Share::Written(written)));
    }

    // ---- what this side says ----

    fn looked(&mut self, look: Look, out: &mut Vec<SharingOutput>) {
        self.look = match self.look {
            Looking::UnderWayAndDue | Looking::Due => Looking::Due,
            Looking::UnderWay | Looking::UpToDate => Looking::UpToDate,
        };
        // The number says whether anything is different; the grants are the same for as long as the session lives.
        if let Some(shown) = look.config
            && self.config.replace(shown.modno()) != Some(shown.modno())
        {
            out.push(SharingOutput::Send(Share::Config(shown)));
        }
        if let Some(resources) = look.resources
            && self.resources.as_ref() != Some(&resources)
        {
            self.resources = Some(resources.clone());
            out.push(SharingOutput::Send(Share::Resources(resources)));
        }
        if let Some(offer) = look.offer
            && self.shared.as_ref() != Some(&offer.repos)
        {
            self.shared = Some(offer.repos.clone());
            // What waits is out of date.
            self.waiting.retain(|waiting| !matches!(waiting.request, Request::Shared(_)));
            self.waiting.push_back(Write { key: offer.key, request: Request::Shared(offer.repos) });
        }
    }

    fn ask(&mut self, write: Write, out: &mut Vec<SharingOutput>) {
        if self.waiting.len() >= WRITES_WAITING {
            out.push(SharingOutput::Busy(write.key));
        } else {
            self.waiting.push_back(write);
        }
    }

    fn may_ask(&self) -> bool {
        self.asked.is_none() && !self.waiting.is_empty()
    }

    fn pump(&mut self, now: Duration, out: &mut Vec<SharingOutput>) {
        if self.look == Looking::Due && self.looks.try_take(now) {
            self.look = Looking::UnderWay;
            out.push(SharingOutput::Look);
        }
        if self.may_ask()
            && self.asks.try_take(now)
            && let Some(write) = self.waiting.pop_front()
        {
            self.asked = Some(write.key);
            out.push(SharingOutput::Send(Share::Write(write)));
        }
    }
}

/// So many at once, and as many a minute from then on.
#[derive(Debug)]
struct Pace {
    every: Duration,
    /// How far ahead of the time the last one may lie.
    slack: Duration,
    /// When everything is allowed at once again.
    rested: Duration,
}

impl Pace {
    const fn a_minute(limit: u32) -> Self {
        let every = Duration::from_mins(1).checked_div(limit);
        let every = match every {
            Some(every) => every,
            None => Duration::MAX,
        };
        Self { every, slack: every.saturating_mul(limit.saturating_sub(1)), rested: Duration::ZERO }
    }

    /// When one more is allowed.
    fn next(&self) -> Duration {
        self.rested.saturating_sub(self.slack)
    }

    fn try_take(&mut self, now: Duration) -> bool {
        let allowed = now >= self.next();
        if allowed {
            self.rested = self.rested.max(now).saturating_add(self.every);
        }
        allowed
    }

    fn take(&mut self, now: Duration, message: &'static str, limit: u32) -> Result<(), Violation> {
        if self.try_take(now) { Ok(()) } else { Err(Violation::TooOften { message, limit }) }
    }
}
