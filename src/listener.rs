//! HTTP/1.1 listeners with every bound in one place: connections, header size and time.
//!
//! Connections that wait for a request are looked over ten times in a header's time, by one timer for all of them: a timer
//! for each would be set, moved and taken back with every request.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections served at once; more wait in the kernel's queue.
    pub connections_max: usize,
    /// From the connection, or the last answer on it, to a complete request header. Up to a tenth more.
    pub header_timeout: Duration,
}

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "can't listen on {address} ({setting}): {source}; choose an address of this host and a port that nothing else uses"
)]
pub struct ListenError {
    address: SocketAddr,
    setting: &'static str,
    source: std::io::Error,
}

const HEADER_BYTES_MAX: usize = 16 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Opens `address`, which `setting` names.
pub async fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError {
            address,
            setting,
            source,
        })
}

/// A socket that takes connections.
pub trait Accept: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next one.
    fn next(&self) -> impl Future<Output = std::io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> std::io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        Ok(stream)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> std::io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// How long a connection has been without a request.
#[derive(Clone)]
struct Waiting {
    began: Instant,
    /// Milliseconds from `began`; [`ANSWERING`] while there is a request.
    since_ms: Arc<AtomicU64>,
}

const ANSWERING: u64 = u64::MAX;

impl Waiting {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            since_ms: Arc::new(AtomicU64::new(0)),
        }
    }

    fn answers(&self) {
        self.since_ms.store(ANSWERING, Ordering::Relaxed);
    }

    fn waits(&self) {
        self.since_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn exceeds(&self, timeout: Duration) -> bool {
        let waited_ms = self
            .now_ms()
            .saturating_sub(self.since_ms.load(Ordering::Relaxed));
        u128::from(waited_ms) >= timeout.as_millis()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(ANSWERING - 1)
    }
}

/// Serves connections for ever; a dropped future closes them all.
pub async fn serve<A, H, R>(listener: A, bounds: Bounds, handle: H)
where
    A: Accept,
    H: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(bounds.connections_max));
    let mut connections = tokio::task::JoinSet::new();
    let mut waiting: Vec<(Waiting, AbortHandle)> = Vec::new();
    let mut sweep = tokio::time::interval(bounds.header_timeout / 10);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            (slot, stream) = next(&slots, &listener) => {
                let wait = Waiting::new();
                let task = connections.spawn(connection(slot, stream, handle.clone(), wait.clone()));
                waiting.push((wait, task));
            }
            _ = sweep.tick(), if !waiting.is_empty() => waiting.retain(|(wait, task)| {
                if wait.exceeds(bounds.header_timeout) {
                    task.abort();
                }
                !task.is_finished()
            }),
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection<S, H, R>(slot: OwnedSemaphorePermit, stream: S, handle: H, wait: Waiting)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<Full<Bytes>>>,
{
    let _slot = slot;
    let service = service_fn(move |request| {
        wait.answers();
        let answer = handle(request);
        let wait = wait.clone();
        async move {
            let answer = answer.await;
            wait.waits();
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEADER_BYTES_MAX)
        // Answers are small: copying one beside its header costs less than a vectored write.
        .writev(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended early");
    }
}

async fn next<A: Accept>(
    slots: &Arc<Semaphore>,
    listener: &A,
) -> (OwnedSemaphorePermit, A::Stream) {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    (slot, accept(listener).await)
}

/// The next connection. Errors of accept (out of descriptors, a peer that is gone) pass; a busy loop would not help.
async fn accept<A: Accept>(listener: &A) -> A::Stream {
    loop {
        match listener.next().await {
            Ok(stream) => return stream,
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const BOUNDS: Bounds = Bounds {
        connections_max: 1,
        header_timeout: Duration::from_millis(200),
    };
    const SLOW_ANSWER: Duration = Duration::from_millis(600);
    const PATIENCE: Duration = Duration::from_secs(30);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// How long a connection stays open after `sent`, and what comes over it.
    async fn served(sent: &[u8]) -> (Duration, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let begin = Instant::now();
        let server = tokio::spawn(serve(listener, BOUNDS, |_| async {
            tokio::time::sleep(SLOW_ANSWER).await;
            Response::new(Full::new(Bytes::from_static(b"answered")))
        }));
        client.write_all(sent).await.unwrap();
        let mut received = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, client.read_to_end(&mut received)).await;
        closed.expect("the connection is closed").unwrap();
        server.abort();
        (begin.elapsed(), received)
    }

    #[tokio::test]
    async fn a_header_that_does_not_end_closes_the_connection() {
        for sent in [&b""[..], b"GET / HT", &REQUEST[..REQUEST.len() - 1]] {
            let (open, received) = served(sent).await;
            assert!(open >= BOUNDS.header_timeout, "{open:?}");
            assert!(received.is_empty());
        }
    }

    #[tokio::test]
    async fn a_slow_answer_comes_and_an_idle_connection_closes_after_it() {
        let (open, received) = served(REQUEST).await;
        assert!(open >= SLOW_ANSWER + BOUNDS.header_timeout, "{open:?}");
        assert!(received.ends_with(b"answered"));
    }

    #[tokio::test]
    async fn a_closed_connection_makes_room_for_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, BOUNDS, |_| async {
            Response::new(Full::new(Bytes::from_static(b"answered")))
        }));
        let idle = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(REQUEST).await.unwrap();
        let mut received = [0; 12];
        let answered = tokio::time::timeout(PATIENCE, second.read_exact(&mut received)).await;
        answered.expect("the idle one gives way").unwrap();
        assert_eq!(&received, b"HTTP/1.1 200");
        drop(idle);
        server.abort();
    }
}
