//! What a session asks of its store, one thing at a time beside its transactions, and the answers.
//!
//! The driver decides when; nothing here knows the stream.

use std::pin::Pin;
use std::sync::Arc;

use opmesh_core::model::KeyId;
use opmesh_core::protocol::{Message, Write};
use opmesh_core::session::{Compare, Found, Input, Kept, Read, SharingInput};

use crate::store::{Epoch, Learnt, Role, StoreError};

use super::{Local, beside};

/// Something under way.
pub(super) type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the store is asked for, apart from transactions.
#[derive(Debug)]
pub(super) enum Wish {
    Read(Read),
    TakeIncarnation,
    Compare(Compare),
    Look,
    Keep(Kept),
    Judge(Write),
}

/// What the store answered, and to which machine.
pub(super) enum Done {
    Session(Input),
    Sharing(SharingInput),
    Kept,
}

impl Wish {
    /// What leads to frames waits for room, so that it is read when it can be sent.
    pub(super) fn needs_room(&self) -> bool {
        matches!(self, Self::Read(_) | Self::Look)
    }

    pub(super) fn perform(
        self,
        local: Arc<Local>,
        peer: KeyId,
        session: (Role, Option<Epoch>),
    ) -> Task<Result<Done, StoreError>> {
        Box::pin(async move {
            let store = &local.store;
            Ok(match self {
                Self::Read(read) => Done::Session(Input::Found(store.read(read).await?)),
                Self::TakeIncarnation => {
                    Done::Session(Input::NewIncarnation(store.take_incarnation().await?))
                }
                Self::Compare(compare) => {
                    Done::Session(Input::Found(Found::Needs(store.compare(&peer, compare).await?)))
                }
                Self::Look => {
                    Done::Sharing(SharingInput::Looked(beside::look(store, &peer, session.0).await?))
                }
                Self::Keep(kept) => {
                    beside::keep(store, &peer, kept).await?;
                    Done::Kept
                }
                Self::Judge(write) => {
                    Done::Sharing(SharingInput::Judged(beside::judge(&local, &peer, session, write).await?))
                }
            })
        })
    }
}

/// Stores what a peer says about its keys, or that it knows ours; what to answer.
pub(super) async fn learn(
    local: Arc<Local>,
    peer: KeyId,
    message: Message,
) -> Result<Option<Message>, StoreError> {
    match message {
        Message::Succession(said) => {
            let newest = said.newest();
            let learnt = local.store.learn_succession(&peer, said).await?;
            if learnt == Learnt::OtherFirstKey {
                tracing::warn!("rows of this peer are hashed with another first key than it tells");
            }
            Ok((learnt == Learnt::Known).then_some(Message::SuccessionKnown(newest)))
        }
        Message::SuccessionKnown(key) => {
            if local.me().succession().is_some_and(|ours| ours.newest() == key) {
                local.store.confirm_succession(&peer, key).await?;
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}
