//! Two instances in this process: real stores, real sessions, every frame through the wire format and counted. No
//! network in between.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use opmesh::clock::Clock;
use opmesh::identity::Identity;
use opmesh::store::{Dial, Epoch, NewPeer, Pending, Role, Roles, Store};
use opmesh::wire;
use opmesh_core::model::{KeyId, ProcessNonce};
use opmesh_core::permission::{Grants, Scopes};
use opmesh_core::protocol::Message;
use opmesh_core::session::{Found, Hub, HubConfig, Input, Output, Owner, OwnerConfig, Pace, Report};
use prost::Message as _;

/// An owner, a hub, and what their last session said.
pub(crate) struct Pair {
    pub(crate) owner: Store,
    pub(crate) hub: Store,
    pub(crate) owner_key: KeyId,
    pub(crate) counted: Counted,
}

/// The frames of one session, from State on.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counted {
    /// Protobuf bytes from owner to hub, and back.
    pub(crate) bytes: [usize; 2],
    /// Of those to the hub, what operations' records take.
    pub(crate) record_bytes: usize,
    /// The largest frame.
    pub(crate) largest: usize,
    /// Frames by direction.
    pub(crate) frames: [usize; 2],
    /// How often the direction turned from owner to hub.
    pub(crate) exchanges: usize,
    last: Option<Role>,
}

impl Counted {
    fn count(&mut self, from: Role, bytes: usize) {
        let way = usize::from(from == Role::KnownHost);
        self.bytes[way] += bytes;
        self.frames[way] += 1;
        self.largest = self.largest.max(bytes);
        if from == Role::AuthorizedClient && self.last != Some(from) {
            self.exchanges += 1;
        }
        self.last = Some(from);
    }
}

impl Pair {
    /// Two new stores in this folder; the hub lets the owner in.
    pub(crate) async fn new(folder: &Path) -> Self {
        let open = |name: &str, seed: u8| {
            let own = Identity::from_seed(&[seed; 32]).public_key();
            Store::create(&folder.join(name), own, Clock::system()).unwrap()
        };
        let (owner, hub) = (open("owner.db", 1), open("hub.db", 2));
        let identity = Identity::from_seed(&[1; 32]);
        let claim = opmesh_core::handshake::Claim {
            key: identity.public_key(),
            instance: "owner".parse().unwrap(),
            token: None,
        };
        hub.add_peer(NewPeer {
            key: identity.key_id(),
            instance: None,
            roles: Roles { known_host: false, authorized_client: true },
            verified: true,
            dial: Dial::default(),
            given: Grants::default(),
            joining: None,
        })
        .await
        .unwrap();
        hub.authorize(claim).await.unwrap();
        Self { owner, hub, owner_key: identity.key_id(), counted: Counted::default() }
    }

    /// One session from State until nothing is left to say.
    pub(crate) async fn session(&mut self) {
        self.counted = Counted::default();
        let takeover = self.hub.take_over(&self.owner_key).await.unwrap();
        let everything = Scopes::everything;
        let process = ProcessNonce::new(7).unwrap();
        let config = OwnerConfig { granted: everything(), accepted: everything(), process, pace: Pace::Full };
        let mut owner = Owner::new(config, Duration::ZERO);
        let mut hub = Hub::new(HubConfig { accepted: everything() }, Duration::ZERO);
        let (mut to_owner, mut to_hub) = (VecDeque::from([Input::Tick]), VecDeque::new());
        let mut commits: VecDeque<Pending> = VecDeque::new();
        loop {
            while let Some(input) = to_owner.pop_front() {
                let mut out = Vec::new();
                owner.handle(Duration::ZERO, input, &mut out);
                for output in out {
                    self.owner_does(output, &mut to_owner, &mut to_hub).await;
                }
            }
            while let Some(input) = to_hub.pop_front() {
                let mut out = Vec::new();
                hub.handle(Duration::ZERO, input, &mut out);
                for output in out {
                    self.hub_does(output, takeover.epoch, &mut to_hub, &mut to_owner, &mut commits).await;
                }
            }
            if to_owner.is_empty() {
                let Some(oldest) = commits.pop_front() else { return };
                to_hub.push_back(Input::Committed(oldest.await.unwrap()));
            }
        }
    }

    async fn owner_does(
        &mut self,
        output: Output,
        to_owner: &mut VecDeque<Input>,
        to_hub: &mut VecDeque<Input>,
    ) {
        match output {
            Output::Send(message) => {
                to_hub.push_back(Input::Received(self.carry(Role::AuthorizedClient, message)));
            }
            Output::Read(read) => to_owner.push_back(Input::Found(self.owner.read(read).await.unwrap())),
            Output::TakeIncarnation => {
                to_owner.push_back(Input::NewIncarnation(self.owner.take_incarnation().await.unwrap()));
            }
            Output::Report(Report::Differs(position)) => {
                super::report::say(&format!("differs at {position:?}"));
            }
            Output::Report(_) => {}
            other => panic!("an owner does not ask for {other:?}"),
        }
    }

    async fn hub_does(
        &mut self,
        output: Output,
        epoch: Epoch,
        to_hub: &mut VecDeque<Input>,
        to_owner: &mut VecDeque<Input>,
        commits: &mut VecDeque<Pending>,
    ) {
        match output {
            Output::Send(message) => {
                to_owner.push_back(Input::Received(self.carry(Role::KnownHost, message)));
            }
            Output::Commit(transaction) => {
                commits.push_back(self.hub.submit(&self.owner_key, epoch, transaction).await);
            }
            Output::Compare(compare) => {
                let needs = self.hub.compare(&self.owner_key, compare).await.unwrap();
                to_hub.push_back(Input::Found(Found::Needs(needs)));
            }
            Output::Report(_) => {}
            other => panic!("a hub does not ask for {other:?}"),
        }
    }

    fn carry(&mut self, from: Role, message: Message) -> Message {
        let operations = match &message {
            Message::Ops(ops) => ops.operations.as_slice(),
            Message::Answer(answer) => answer.operations.as_slice(),
            _ => &[],
        };
        self.counted.record_bytes +=
            operations.iter().map(|operation| operation.record.as_bytes().len()).sum::<usize>();
        let bytes = wire::encode(message).encode_to_vec();
        self.counted.count(from, bytes.len());
        wire::decode(wire::Frame::decode(bytes.as_slice()).unwrap()).unwrap()
    }
}
