//! A dialer that sends whatever it is told to.

use opmesh_core::handshake::{
    Challenge, Dialer, DialerConfig, DialerSigning, Established, Hello, SignRequest,
};
use opmesh_core::model::KeyId;
use opmesh_core::protocol::{Capability, Message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::super::HubUrl;
use super::super::client::{self, Dialled};
use crate::identity::Identity;
use crate::wire::peer_sync_client::PeerSyncClient;
use crate::wire::{self, Frame};

/// Fixed, so that a test can say the same twice.
pub(super) const NONCE: [u8; 32] = [5; 32];

pub(super) struct Raw {
    pub(super) dialled: Dialled,
    pub(super) hub: KeyId,
    outbound: mpsc::Sender<Frame>,
    inbound: Streaming<Frame>,
}

impl Raw {
    /// A connection with an open Sync stream, on which nothing was said.
    pub(super) async fn open(url: &HubUrl, hub: KeyId) -> Self {
        let dialled = client::connect(url, hub).await.unwrap();
        let (outbound, frames) = mpsc::channel(8);
        let mut client = PeerSyncClient::new(dialled.http.clone());
        let response = client.sync(Request::new(ReceiverStream::new(frames))).await.unwrap();
        Self { dialled, hub, outbound, inbound: response.into_inner() }
    }

    pub(super) fn config(&self, me: &Identity, token: Option<&Identity>) -> DialerConfig {
        DialerConfig {
            me: me.public_key(),
            instance: "raw".parse().unwrap(),
            capabilities: Capability::names(),
            hub: self.hub,
            grants: Vec::new(),
            pairing_token: token.map(Identity::public_key),
            keys: self.dialled.info.keys.clone(),
            tls_peer: self.dialled.tls_peer,
        }
    }

    pub(super) async fn send(&self, frame: impl Into<Frame>) {
        // The hub may have given up on us; its status says so.
        drop(self.outbound.send(frame.into()).await);
    }

    pub(super) async fn say(&self, message: Message) {
        self.send(wire::encode(message)).await;
    }

    pub(super) async fn receive(&mut self) -> Result<Frame, Status> {
        let read = tokio::time::timeout(super::PATIENCE, self.inbound.message()).await.unwrap();
        read.map(|frame| frame.expect("the stream ended well where an answer was expected"))
    }

    /// How the hub ends the stream, after whatever else it still says.
    pub(super) async fn end(mut self) -> Result<(), Status> {
        let ending = async {
            while self.inbound.message().await?.is_some() {}
            Ok(())
        };
        tokio::time::timeout(super::PATIENCE, ending).await.unwrap()
    }

    /// Up to the hub's proof of itself, as it should be.
    pub(super) async fn greet(
        &mut self,
        me: &Identity,
        token: Option<&Identity>,
    ) -> (Hello, Challenge, DialerSigning, SignRequest) {
        let (waiting, hello) = Dialer::start(self.config(me, token), NONCE);
        self.send(hello.clone()).await;
        let challenge = wire::challenge(self.receive().await.unwrap()).unwrap();
        let (signing, request) = waiting.challenge(challenge.clone()).unwrap();
        (hello, challenge, signing, request)
    }

    /// The whole handshake, as it should be.
    pub(super) async fn shake_hands(
        &mut self,
        me: &Identity,
        token: Option<&Identity>,
    ) -> Result<Established, Status> {
        let (_, _, signing, request) = self.greet(me, token).await;
        let token = token.zip(request.token).map(|(token, message)| token.sign(&message));
        let (waiting, proof) = signing.signed(me.sign(&request.identity), token);
        self.send(proof).await;
        let accepted = wire::accepted(self.receive().await?).unwrap();
        let (established, confirm) = waiting.accepted(accepted).unwrap();
        self.send(confirm).await;
        Ok(established)
    }
}
