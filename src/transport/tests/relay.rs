//! A hop between two instances that can stand still or break.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::HubUrl;

pub(super) struct Relay {
    pub(super) url: HubUrl,
    pub(super) stands_still: watch::Sender<bool>,
    heard: Heard,
    _tasks: JoinSet<()>,
}

/// Everything that passed, in both directions.
type Heard = Arc<Mutex<Vec<u8>>>;

impl Relay {
    /// Passes on to `hub`; breaks each connection once the dialer has sent `budget` bytes over it.
    pub(super) async fn new(hub: &HubUrl, budget: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = HubUrl { port: listener.local_addr().unwrap().port(), ..hub.clone() };
        let stands_still = watch::Sender::new(false);
        let heard = Heard::default();
        let mut tasks = JoinSet::new();
        let hub = (hub.host.clone(), hub.port);
        tasks.spawn(run(listener, hub, budget, stands_still.subscribe(), heard.clone()));
        Self { url, stands_still, heard, _tasks: tasks }
    }

    /// Every byte that has passed so far.
    pub(super) fn carried(&self) -> Vec<u8> {
        self.heard.lock().unwrap().clone()
    }
}

async fn run(
    listener: TcpListener,
    hub: (String, u16),
    budget: usize,
    still: watch::Receiver<bool>,
    heard: Heard,
) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let (hub, still, heard) = (hub.clone(), still.clone(), heard.clone());
        connections.spawn(async move {
            let Ok(far) = TcpStream::connect(hub).await else { return };
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            let there = pass(near_in, far_out, budget, still.clone(), &heard);
            let back = pass(far_in, near_out, usize::MAX, still, &heard);
            // Whatever ends one direction ends both.
            drop(tokio::try_join!(there, back));
        });
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut budget: usize,
    mut still: watch::Receiver<bool>,
    heard: &Heard,
) -> io::Result<()> {
    let mut room = vec![0; 16 * 1024];
    loop {
        still.wait_for(|still| !still).await.map_err(io::Error::other)?;
        let read = from.read(&mut room).await?;
        budget = budget.checked_sub(read).ok_or(io::ErrorKind::BrokenPipe)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        still.wait_for(|still| !still).await.map_err(io::Error::other)?;
        heard.lock().unwrap().extend_from_slice(&room[..read]);
        to.write_all(&room[..read]).await?;
    }
}
