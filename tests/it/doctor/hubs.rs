//! What answers where a hub should be: hand-made hubs that say what no instance of today would, and a dialer of another
//! time. All without TLS, on loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use opmesh::clock::Clock;
use opmesh::identity::Identity;
use opmesh::wire::{self, Frame};
use opmesh_core::handshake::{Acceptor, AcceptorConfig, ChannelKeys, Hello, target_tag};
use opmesh_core::model::{KeyId, UnixMs};
use opmesh_core::permission::Scopes;
use opmesh_core::protocol::{Capability, Findings, Room, Standing};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::server::{NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// What a hand-made hub does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// Shares no version of the protocol with the dialer: turns it away as it would any stranger.
    SharesNoVersion,
    /// Chooses a version that was not offered.
    Chooses(u32),
    /// Lets everybody in, and answers an inquiry with another time and program.
    Answers { clock_ahead_ms: i64, version: &'static str, room: Room },
    /// Does not know what an inquiry is.
    CannotBeAsked,
    /// Passes nothing on before the dialer has ended its half, as a buffering proxy does.
    Collects,
}

/// A hand-made hub, until it is dropped.
pub(crate) struct Hub {
    pub(crate) address: SocketAddr,
    pub(crate) key: KeyId,
    _runtime: Runtime,
}

impl Hub {
    pub(crate) fn new(act: Act) -> Self {
        let identity = Arc::new(Identity::generate().unwrap());
        let key = identity.key_id();
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service { act, identity };
        let server = tonic::transport::Server::builder();
        runtime.spawn(async move {
            server.serve_with_incoming(service, TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, key, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Says Hello to a hub that listens without TLS, with these versions; what the hub answers.
pub(crate) fn greet(address: &str, hub: KeyId, versions: &[u32]) -> Status {
    let nonce = [7; 32];
    let hello = Hello { versions: versions.to_vec(), nonce, target_tag: target_tag(&hub, &nonce) };
    let url = format!("http://{address}");
    Runtime::new().unwrap().block_on(async move {
        let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let (frames, sent) = mpsc::channel(1);
        frames.send(Frame::from(hello)).await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/opmesh.sync.v1.PeerSync/Sync");
        let codec = ProstCodec::<Frame, Frame>::default();
        let mut answers = client
            .streaming(Request::new(ReceiverStream::new(sent)), path, codec)
            .await
            .unwrap()
            .into_inner();
        answers.message().await.expect_err("the hub shares no version")
    })
}

#[derive(Clone)]
struct Service {
    act: Act,
    identity: Arc<Identity>,
}

type Answering<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl NamedService for Service {
    const NAME: &'static str = "opmesh.sync.v1.PeerSync";
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<Frame, Frame>::default();
            Ok(tonic::server::Grpc::new(codec).streaming(service, request).await)
        })
    }
}

impl StreamingService<Frame> for Service {
    type Response = Frame;
    type ResponseStream = ReceiverStream<Result<Frame, Status>>;
    type Future = Answering<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Frame>>) -> Self::Future {
        let service = self.clone();
        let mut inbound = request.into_inner();
        Box::pin(async move {
            if matches!(service.act, Act::Collects) {
                while let Ok(Some(_)) = inbound.message().await {}
            }
            let (outbound, answers) = mpsc::channel(8);
            // Owned by the hub's runtime, which ends with the test.
            tokio::runtime::Handle::current().spawn(async move {
                if let Err(status) = service.perform(&mut inbound, &outbound).await {
                    drop(outbound.send(Err(status)).await);
                }
            });
            Ok(Response::new(ReceiverStream::new(answers)))
        })
    }
}

type Outbound = mpsc::Sender<Result<Frame, Status>>;

impl Service {
    async fn perform(&self, inbound: &mut Streaming<Frame>, outbound: &Outbound) -> Result<(), Status> {
        let hello = wire::hello(next(inbound).await?).unwrap();
        if matches!(self.act, Act::SharesNoVersion) {
            return Err(Status::unauthenticated(opmesh::transport::STRANGER));
        }
        let inquiry = if matches!(self.act, Act::CannotBeAsked) { Vec::new() } else { Capability::names() };
        let config = AcceptorConfig {
            me: self.identity.public_key(),
            instance: "handmade".parse().unwrap(),
            capabilities: inquiry,
            keys: ChannelKeys::Plain,
            tls_peer: None,
        };
        let (signing, message) = Acceptor::start(config).hello(hello, [1; 32], [2; 16]).unwrap();
        let (awaiting_proof, mut challenge) = signing.signed(self.identity.sign(&message));
        if let Act::Chooses(version) = self.act {
            challenge.version = version;
        }
        outbound.send(Ok(challenge.into())).await.ok();
        let proof = wire::proof(next(inbound).await?).unwrap();
        let (authorizing, _) = awaiting_proof.proof(proof).unwrap();
        let (_, accepted) = authorizing.authorized(Vec::new(), Scopes::everything());
        outbound.send(Ok(accepted.into())).await.ok();
        let asked = wire::inquiry(next(inbound).await?).unwrap();
        assert_eq!(asked.version, env!("CARGO_PKG_VERSION"));
        if let Act::Answers { clock_ahead_ms, version, room } = self.act {
            let findings = Findings {
                at: UnixMs(Clock::system().wall().0 + clock_ahead_ms),
                version: version.to_owned(),
                protocol_versions: vec![1],
                grants_received: Vec::new(),
                standing: Standing::Well,
                room,
                schema: 1,
            };
            outbound.send(Ok(findings.into())).await.ok();
        }
        Ok(())
    }
}

async fn next(inbound: &mut Streaming<Frame>) -> Result<Frame, Status> {
    inbound.message().await?.ok_or_else(|| Status::cancelled("the dialer has gone"))
}
