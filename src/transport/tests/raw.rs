//! A dialer that sends whatever it is told to.

use std::sync::Mutex;

use opmesh_core::handshake::{
    Challenge, ChannelKeys, Dialer, DialerConfig, DialerSigning, Established, Hello, SignRequest,
};
use opmesh_core::model::KeyId;
use opmesh_core::protocol::{Capability, Message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::super::HubUrl;
use super::super::client::{self, Dialled};
use super::super::connection::Protection;
use super::super::seal::{self, Agreed, Seal};
use crate::identity::Identity;
use crate::wire::peer_sync_client::PeerSyncClient;
use crate::wire::{self, Frame};

/// Fixed, so that a test can say the same twice.
pub(super) const NONCE: [u8; 32] = [5; 32];

pub(super) struct Raw {
    pub(super) dialled: Dialled,
    pub(super) hub: KeyId,
    pub(super) keys: ChannelKeys,
    pub(super) instance: String,
    /// What it names in the handshake.
    pub(super) capabilities: Vec<String>,
    outbound: mpsc::Sender<Frame>,
    inbound: Streaming<Frame>,
    seal: Mutex<Option<Box<Seal>>>,
}

impl Raw {
    /// A connection with an open Sync stream, sealed where the channel is; nothing was said in it.
    pub(super) async fn open(url: &HubUrl, hub: KeyId) -> Self {
        let dialled = client::connect(url, hub).await.unwrap();
        Self::over(&dialled, hub).await
    }

    /// The same over a connection that there is.
    pub(super) async fn over(dialled: &Dialled, hub: KeyId) -> Self {
        Self::try_over(dialled, hub).await.unwrap()
    }

    /// The same, or what the hub says instead.
    pub(super) async fn try_over(dialled: &Dialled, hub: KeyId) -> Result<Self, Status> {
        let mut raw = Self::stream(dialled, hub).await?;
        if raw.dialled.info.protection == Protection::Sealed {
            let (offered, offer) = seal::offer();
            raw.send(offer).await;
            let answer = wire::seal_answer(raw.receive().await?).unwrap();
            raw.agreed(offered.answered(&answer).unwrap());
        }
        Ok(raw)
    }

    /// A connection with an open Sync stream, on which nothing at all was said.
    pub(super) async fn unsealed(url: &HubUrl, hub: KeyId) -> Self {
        let dialled = client::connect(url, hub).await.unwrap();
        Self::stream(&dialled, hub).await.unwrap()
    }

    async fn stream(dialled: &Dialled, hub: KeyId) -> Result<Self, Status> {
        let (outbound, frames) = mpsc::channel(8);
        let mut client = PeerSyncClient::new(dialled.http.clone());
        let response = client.sync(Request::new(ReceiverStream::new(frames))).await?;
        let keys = match &dialled.info.protection {
            Protection::Bound(keys) => keys.clone(),
            Protection::Sealed => ChannelKeys::Plain,
        };
        let (dialled, inbound) = (dialled.clone(), response.into_inner());
        let instance = "raw".to_owned();
        let capabilities = Capability::names();
        Ok(Self { dialled, hub, keys, instance, capabilities, outbound, inbound, seal: Mutex::new(None) })
    }

    /// From now on everything is sealed.
    pub(super) fn agreed(&mut self, agreed: Agreed) {
        self.keys = agreed.keys;
        self.seal = Mutex::new(Some(agreed.seal));
    }

    pub(super) fn config(&self, me: &Identity, token: Option<&Identity>) -> DialerConfig {
        DialerConfig {
            me: me.public_key(),
            instance: self.instance.parse().unwrap(),
            capabilities: self.capabilities.clone(),
            hub: self.hub,
            grants: Vec::new(),
            pairing_token: token.map(Identity::public_key),
            keys: self.keys.clone(),
            tls_peer: self.dialled.tls_peer,
        }
    }

    pub(super) async fn send(&self, frame: impl Into<Frame>) {
        let frame = match self.seal.lock().unwrap().as_mut() {
            Some(seal) => seal.seal(&wire::to_be_sealed(&frame.into())).unwrap().into(),
            None => frame.into(),
        };
        self.send_as_is(frame).await;
    }

    /// Around the seal.
    pub(super) async fn send_as_is(&self, frame: Frame) {
        // The hub may have given up on us; its status says so.
        drop(self.outbound.send(frame).await);
    }

    /// A frame as [`Raw::send`] would send it, not sent.
    pub(super) fn sealed(&self, frame: impl Into<Frame>) -> Frame {
        let mut seal = self.seal.lock().unwrap();
        seal.as_mut().unwrap().seal(&wire::to_be_sealed(&frame.into())).unwrap().into()
    }

    pub(super) async fn say(&self, message: Message) {
        self.send(wire::encode(message)).await;
    }

    pub(super) async fn receive(&mut self) -> Result<Frame, Status> {
        let read = tokio::time::timeout(super::PATIENCE, self.inbound.message()).await.unwrap();
        let frame = read?.expect("the stream ended well where an answer was expected");
        Ok(match self.seal.lock().unwrap().as_mut() {
            Some(seal) => wire::from_sealed(&seal.open(&wire::sealed(frame).unwrap()).unwrap()).unwrap(),
            None => frame,
        })
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
