//! Streams of replies: a task of the node produces, the caller's reading paces it.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use crate::admin::error::Failure;
use crate::node::Node;

/// Replies that wait for the caller to read them. A few are enough to keep both sides busy; a full queue waits.
const QUEUE: usize = 4;

pub(super) type Lines<T> = ReceiverStream<Result<T, Status>>;

/// Where a producer puts its replies.
#[derive(Debug)]
pub(super) struct Out<T> {
    queue: mpsc::Sender<Result<T, Status>>,
}

/// Why a producer stops early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The caller has gone, or the node is closing.
    Gone,
    /// It failed.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Stop {
    fn from(failure: E) -> Self {
        Self::Failed(failure.into())
    }
}

impl<T> Out<T> {
    /// Waits for room.
    pub(super) async fn send(&self, reply: T) -> Result<(), Stop> {
        self.queue.send(Ok(reply)).await.map_err(|_| Stop::Gone)
    }
}

/// Answers with what `produce` sends; its failure becomes the stream's last word.
pub(super) fn stream<T, F>(node: &Node, produce: impl FnOnce(Node, Out<T>) -> F) -> Response<Lines<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Stop>> + Send + 'static,
{
    let (queue, replies) = mpsc::channel(QUEUE);
    let last_word = queue.clone();
    let reader = queue.clone();
    let producing = produce(node.clone(), Out { queue });
    let stop = node.stopping().child_token();
    let over = stop.clone();
    // A producer may wait long for something to say; it ends when nobody listens any more.
    node.run(async move {
        over.run_until_cancelled(reader.closed()).await;
        over.cancel();
    });
    node.run(async move {
        let ended = stop.run_until_cancelled(producing).await;
        if let Some(Err(Stop::Failed(failure))) = ended {
            // An error means that nobody reads any more.
            drop(last_word.send(Err(failure.into())).await);
        }
        stop.cancel();
    });
    Response::new(ReceiverStream::new(replies))
}
