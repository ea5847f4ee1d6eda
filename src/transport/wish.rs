//! What a session asks of the store apart from transactions, and how it is answered.
//!
//! The driver performs one at a time, in the order in which they came. Nothing is decided here.

use std::pin::Pin;
use std::sync::Arc;

use opmesh_core::model::KeyId;
use opmesh_core::protocol::Write;
use opmesh_core::session::{Compare, Found, Input, Kept, Read, SharingInput};

use crate::store::{Epoch, Role, StoreError};

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
