//! The way to an instance elsewhere: its admin listener, with its key pinned and a token.
//!
//! The caller knows the instance by its key ID, as a host knows its hub: no certificate authority and no name can put
//! another one in its place. A listener that shows another certificate than the identity's is for other clients.

use std::fmt;
use std::future::ready;
use std::io;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use hyper_util::rt::TokioIo;
use opmesh_core::model::KeyId;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt as _, service_fn};

use super::client::Client;
use super::error::{Failure, Reason};
use crate::transport::{Channel, DEFAULT_PORT, HubUrl, connector, other_key};

/// Name look-up, TCP and TLS.
const CONNECT: Duration = Duration::from_secs(10);

/// Where an instance is administered, which one it must be, and what is shown to it.
#[derive(Clone)]
pub struct Remote {
    url: HubUrl,
    key: KeyId,
    authorization: HeaderValue,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Remote {
    /// From texts: `https://HOST:PORT`, a key ID, and a token.
    pub fn new(url: &str, key_id: &str, token: &str) -> Result<Self, Failure> {
        let invalid = |fault: &dyn fmt::Display| Failure::new(Reason::InvalidArgument, fault);
        let parsed = HubUrl::parse(url, Some(Channel::Tls))?;
        if parsed.port == DEFAULT_PORT && !url.trim_end_matches('/').ends_with(&format!(":{DEFAULT_PORT}")) {
            let text = format!("{url} names no port: write the one of the admin listener, as in {url}:9852");
            return Err(invalid(&text));
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| invalid(&"the admin token is no line of plain text"))?;
        authorization.set_sensitive(true);
        Ok(Self { url: parsed, key: key_id.parse().map_err(|fault| invalid(&fault))?, authorization })
    }

    /// Connects; [`Reason::OtherIdentity`] when another instance answers.
    pub async fn connect(&self) -> Result<Client, Failure> {
        let stream = match tokio::time::timeout(CONNECT, self.secure()).await {
            Ok(secured) => secured.map_err(|error| self.failed(&error))?,
            Err(_) => return Err(self.failed(&io::ErrorKind::TimedOut.into())),
        };
        // One connection for one command: there is nothing to connect anew.
        let mut stream = Some(TokioIo::new(stream));
        let once = service_fn(move |_: http::Uri| {
            ready(stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
        });
        let endpoint = Endpoint::from_static("https://opmesh.invalid");
        let channel = endpoint
            .connect_with_connector(once)
            .await
            .map_err(|error| self.failed(&io::Error::other(error)))?;
        let authorization = self.authorization.clone();
        let channel = channel.map_request(move |mut request: Request<Body>| {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
            request
        });
        Ok(Client::over(BoxCloneSyncService::new(channel)))
    }

    async fn secure(&self) -> io::Result<TlsStream<TcpStream>> {
        let connector = connector(self.key).map_err(io::Error::other)?;
        let name = ServerName::try_from(self.url.host.clone()).map_err(io::Error::other)?;
        let stream = TcpStream::connect((self.url.host.as_str(), self.url.port)).await?;
        connector.connect(name, stream).await
    }

    fn failed(&self, error: &io::Error) -> Failure {
        let url = &self.url;
        match other_key(error) {
            Some(other) => Failure::new(Reason::OtherIdentity, format!("{url}: {other}"))
                .hint("compare key IDs with that instance's operator"),
            None => Failure::new(Reason::Unreachable, format!("no admin listener answers on {url}: {error}"))
                .hint("there, `opmesh status --json` says in daemon.admin_listen where it listens"),
        }
    }
}
