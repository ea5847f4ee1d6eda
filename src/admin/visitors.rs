//! How many connections to the admin socket there may be of others than root and the daemon's own user: the members of
//! `admin.group` must not be able to keep an administrator out. Called by the socket for every connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, UdsConnectInfo};

/// Connections of all members of the group together. A run holds one for two calls of a moment each.
const VISITORS: usize = 32;

/// The places that there are.
#[derive(Debug, Clone)]
pub(super) struct Visitors {
    own: u32,
    places: Arc<Semaphore>,
}

/// A connection's place; root and the daemon's own user need none.
type Place = Option<OwnedSemaphorePermit>;

impl Visitors {
    /// For a daemon that runs as `own`.
    pub(super) fn new(own: u32) -> Self {
        Self { own, places: Arc::new(Semaphore::new(VISITORS)) }
    }

    /// The connection with its place; none, and the connection is closed, when there is none left.
    pub(super) fn take_in(&self, stream: UnixStream) -> Option<Visit> {
        let uid = stream.peer_cred().ok().map(|caller| caller.uid());
        let Some(place) = self.place(uid) else {
            tracing::warn!(
                uid,
                limit = VISITORS,
                "a connection to the admin socket was closed: too many are open"
            );
            return None;
        };
        Some(Visit { stream, _place: place })
    }

    fn place(&self, uid: Option<u32>) -> Option<Place> {
        if uid.is_some_and(|uid| uid == 0 || uid == self.own) {
            return Some(None);
        }
        self.places.clone().try_acquire_owned().ok().map(Some)
    }
}

/// A connection to the socket.
#[derive(Debug)]
pub(super) struct Visit {
    stream: UnixStream,
    _place: Place,
}

impl Connected for Visit {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_the_group_have_thirty_two_places_and_administrators_need_none() {
        let visitors = Visitors::new(990);
        let mut held: Vec<_> = (0..32).map(|_| visitors.place(Some(1000)).unwrap()).collect();
        assert!(visitors.place(Some(1001)).is_none());
        assert!(visitors.place(None).is_none(), "whoever the kernel says nothing about");
        for administrator in [0, 990] {
            assert!(visitors.place(Some(administrator)).is_some());
        }
        held.pop();
        assert!(visitors.place(Some(1001)).is_some());
    }
}
