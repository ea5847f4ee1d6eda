//! Lines to transactions: how many go together, and what a bad one takes with it.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::change;
use super::lines::Lines;
use crate::admin::pb;

/// How lines are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Batching {
    /// Up to [`TRANSACTION_LINES`] or [`TRANSACTION_BYTES`] together.
    Grouped,
    /// All together.
    Atomic,
}

/// Why gathering ended early.
#[derive(Debug)]
pub(super) enum Bad {
    /// A line that is no change. What was gathered with it was not sent.
    Line(pb::ApplyResult),
    /// The input broke off.
    Input(io::Error),
}

/// Most lines of one transaction.
pub(super) const TRANSACTION_LINES: usize = 1_000;
/// Most bytes of one transaction's lines, and of one message of a longer one.
const TRANSACTION_BYTES: usize = 1024 * 1024;
/// A pause of the input after which what is there is applied, so that a slow writer sees its results.
const INPUT_PAUSE: Duration = Duration::from_millis(100);

/// Sends the lines as transactions until they end, one is bad, or nobody takes them any more.
pub(super) async fn gather(
    mut lines: Lines,
    batching: Batching,
    transactions: mpsc::Sender<pb::ApplyTransaction>,
) -> Option<Bad> {
    match batching {
        Batching::Grouped => loop {
            let group = match next_group(&mut lines).await {
                Ok(group) if group.is_empty() => return None,
                Ok(group) => group,
                Err(bad) => return Some(bad),
            };
            let transaction = pb::ApplyTransaction { changes: group, more: false };
            if transactions.send(transaction).await.is_err() {
                return None;
            }
        },
        Batching::Atomic => {
            let mut groups = Vec::new();
            loop {
                match next_group(&mut lines).await {
                    Ok(group) if group.is_empty() => break,
                    Ok(group) => groups.push(group),
                    Err(bad) => return Some(bad),
                }
            }
            let last = groups.len();
            for (number, changes) in (1..).zip(groups) {
                if transactions.send(pb::ApplyTransaction { changes, more: number < last }).await.is_err() {
                    break;
                }
            }
            None
        }
    }
}

/// The next lines that go together; none at the end of the input.
async fn next_group(lines: &mut Lines) -> Result<Vec<pb::Change>, Bad> {
    let mut group = Vec::new();
    let mut bytes = 0_usize;
    while group.len() < TRANSACTION_LINES && bytes < TRANSACTION_BYTES {
        let next = if group.is_empty() {
            lines.recv().await
        } else {
            match timeout(INPUT_PAUSE, lines.recv()).await {
                Ok(next) => next,
                Err(_) => break,
            }
        };
        let Some(line) = next else { break };
        let line = line.map_err(Bad::Input)?;
        bytes = bytes.saturating_add(line.bytes.len());
        match change::parse(&line) {
            Ok(change) => group.push(change),
            Err(reason) => return Err(Bad::Line(change::refused(&line, reason))),
        }
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::super::lines::Line;
    use super::*;

    async fn gathered(texts: Vec<String>, batching: Batching) -> (Vec<(usize, bool)>, Option<u32>) {
        let (sender, lines) = mpsc::channel(texts.len().max(1));
        for (number, text) in (1..).zip(texts) {
            sender.try_send(Ok(Line { number, bytes: text.into_bytes() })).expect("room for all");
        }
        drop(sender);
        let (transactions, mut sent) = mpsc::channel(100);
        let bad = gather(lines, batching, transactions).await;
        let mut groups = Vec::new();
        while let Some(transaction) = sent.recv().await {
            groups.push((transaction.changes.len(), transaction.more));
        }
        let bad = bad.map(|bad| match bad {
            Bad::Line(result) => result.line,
            Bad::Input(_) => 0,
        });
        (groups, bad)
    }

    fn deletes(count: usize) -> Vec<String> {
        (1..=count).map(|id| format!(r#"{{"delete":{{"id":{id}}}}}"#)).collect()
    }

    #[tokio::test]
    async fn a_thousand_lines_are_one_transaction() {
        let (groups, bad) = gathered(deletes(2_500), Batching::Grouped).await;
        assert_eq!((groups, bad), (vec![(1_000, false), (1_000, false), (500, false)], None));
    }

    #[tokio::test]
    async fn a_bad_line_takes_its_own_transaction_with_it_and_no_other() {
        let mut lines = deletes(1_200);
        lines[1_100] = "{}".to_owned();
        assert_eq!(gathered(lines, Batching::Grouped).await, (vec![(1_000, false)], Some(1_101)));
    }

    #[tokio::test]
    async fn atomic_is_one_transaction_in_several_messages_or_none_at_all() {
        let (groups, bad) = gathered(deletes(2_500), Batching::Atomic).await;
        assert_eq!((groups, bad), (vec![(1_000, true), (1_000, true), (500, false)], None));
        let mut lines = deletes(2_500);
        lines[2_400] = "{}".to_owned();
        assert_eq!(gathered(lines, Batching::Atomic).await, (vec![], Some(2_401)));
        assert_eq!(gathered(vec![], Batching::Atomic).await, (vec![], None));
    }

    #[tokio::test]
    async fn a_mebibyte_is_a_transaction_however_few_its_lines() {
        let long = format!(r#"{{"delete":{{"id":1}}}}{}"#, " ".repeat(400 * 1024));
        let (groups, _) = gathered(vec![long; 5], Batching::Grouped).await;
        assert_eq!(groups, vec![(3, false), (2, false)]);
    }
}
