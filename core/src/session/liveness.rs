//! When to say something, and when to give a silent peer up.

use std::time::Duration;

use crate::protocol::limits::{DEAD_AFTER, HEARTBEAT};
use crate::protocol::{EndReason, Message};

use super::effect::{Finish, Output};

/// What both roles know about the stream itself.
#[derive(Debug)]
pub(super) struct Liveness {
    heard: Duration,
    spoke: Duration,
    over: bool,
}

impl Liveness {
    pub(super) const fn new(now: Duration) -> Self {
        Self { heard: now, spoke: now, over: false }
    }

    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    pub(super) const fn heard(&mut self, now: Duration) {
        self.heard = now;
    }

    pub(super) fn deadline(&self) -> Duration {
        if self.over { Duration::MAX } else { (self.heard + DEAD_AFTER).min(self.spoke + HEARTBEAT) }
    }

    pub(super) fn tick(&mut self, now: Duration, out: &mut Vec<Output>) {
        if now >= self.heard + DEAD_AFTER {
            self.finish(Finish::Silent, out);
        } else if now >= self.spoke + HEARTBEAT {
            self.send(now, Message::Heartbeat, out);
        }
    }

    pub(super) fn send(&mut self, now: Duration, message: Message, out: &mut Vec<Output>) {
        self.spoke = now;
        out.push(Output::Send(message));
    }

    pub(super) fn close(&mut self, reason: EndReason, out: &mut Vec<Output>) {
        out.push(Output::Send(Message::End(reason)));
        self.finish(Finish::Closed(reason), out);
    }

    pub(super) fn finish(&mut self, finish: Finish, out: &mut Vec<Output>) {
        self.over = true;
        out.push(Output::Finish(finish));
    }
}
