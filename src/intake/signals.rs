//! Signals that are passed to the child instead of ending us.

use std::fs::{self, File};
use std::task::{Context, Poll};

use rustix::process::{Pid, Signal};
use tokio::signal::unix::{self, SignalKind};

/// All signals that a user may mean for the command, and that would end us.
const PASSED: [Signal; 6] =
    [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// The signals that arrive from now on.
#[derive(Debug)]
pub(super) struct Signals {
    listening: Vec<(Signal, unix::Signal)>,
    /// Somebody asked the run to stop.
    stopped: bool,
}

impl Signals {
    /// Begins to catch them, except those that we were told to ignore: with `nohup`, the child ignores SIGHUP, too.
    pub(super) fn catch() -> Self {
        let ignored = ignored();
        let listening = PASSED.into_iter().filter(|signal| ignored & mask(*signal) == 0);
        let listen = |signal: Signal| {
            unix::signal(SignalKind::from_raw(signal.as_raw())).ok().map(|stream| (signal, stream))
        };
        Self { listening: listening.filter_map(listen).collect(), stopped: false }
    }

    /// INT or TERM has arrived.
    pub(super) const fn stopped(&self) -> bool {
        self.stopped
    }

    /// A signal to stop that has arrived and was not passed on: before there is a child, the run shall not begin.
    pub(super) async fn already(&mut self) -> Option<i32> {
        let arrived = std::future::poll_fn(|context| Poll::Ready(self.take(context))).await;
        arrived
            .into_iter()
            .find(|signal| *signal != Signal::USR1 && *signal != Signal::USR2)
            .map(Signal::as_raw)
    }

    /// Passes on what has arrived, and has the task woken by what will. The caller has not waited for the child yet,
    /// so that `child` is still its number.
    pub(super) fn pass_to(&mut self, child: Pid, context: &mut Context<'_>) {
        for signal in self.take(context) {
            if from_terminal(signal) {
                continue;
            }
            if let Err(fault) = rustix::process::kill_process(child, signal) {
                tracing::warn!(?signal, %fault, "a signal could not be passed to the command");
            }
        }
    }

    /// What has arrived; has the task woken by what will.
    pub(super) fn take(&mut self, context: &mut Context<'_>) -> Vec<Signal> {
        let mut arrived = Vec::new();
        for (signal, stream) in &mut self.listening {
            while let Poll::Ready(Some(())) = stream.poll_recv(context) {
                self.stopped |= matches!(*signal, Signal::INT | Signal::TERM);
                arrived.push(*signal);
            }
        }
        arrived
    }
}

/// Whether the terminal sent this signal to our whole process group, the child included. The kernel does not tell us
/// the sender here; a key is the likely one while we stand in the foreground.
fn from_terminal(signal: Signal) -> bool {
    let key = matches!(signal, Signal::INT | Signal::QUIT);
    key && File::open("/dev/tty")
        .ok()
        .and_then(|terminal| rustix::termios::tcgetpgrp(terminal).ok())
        .is_some_and(|foreground| foreground == rustix::process::getpgrp())
}

/// The signals that this process ignores, as a bit mask. The runtime ignores SIGPIPE; it is not among those passed.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn mask(signal: Signal) -> u64 {
    u32::try_from(signal.as_raw() - 1).ok().and_then(|bit| 1_u64.checked_shl(bit)).unwrap_or(0)
}
