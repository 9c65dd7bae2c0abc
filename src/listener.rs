//! HTTP/1.1 listeners with every bound in one place: connections, header size and time.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore};

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections served at once.
    pub connections_max: usize,
    /// From the connection, or the last answer on it, to a complete request header.
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

/// Serves connections for ever; a dropped future closes them all. Where there are as many as allowed, the one that has been
/// idle for longest makes room for the next, so that idle connections keep nobody out.
pub async fn serve<A, H, R>(listener: A, bounds: Bounds, handle: H)
where
    A: Accept,
    H: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(bounds.connections_max));
    let crowded = Arc::new(Notify::new());
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = accept(&listener).await;
        while connections.try_join_next().is_some() {}
        if slots.available_permits() == 0 {
            crowded.notify_one();
        }
        let slot = Arc::clone(&slots)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        // Where nobody was left to be told, nobody has to leave any more.
        let _ = crowded.notified().now_or_never();
        let (handle, crowded) = (handle.clone(), Arc::clone(&crowded));
        connections.spawn(async move {
            let _slot = slot;
            serve_one(stream, bounds, handle, &crowded).await;
        });
    }
}

/// Serves one connection to its end, or until `crowded` picks it: it is closed if idle, and else with its next answer.
async fn serve_one<S, H, R>(stream: S, bounds: Bounds, handle: H, crowded: &Notify)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<Full<Bytes>>>,
{
    let (busy, answered) = (&AtomicBool::new(false), &Notify::new());
    let service = service_fn(move |request| {
        busy.store(true, Ordering::Relaxed);
        let answer = handle(request);
        async move {
            let answer = answer.await;
            busy.store(false, Ordering::Relaxed);
            answered.notify_one();
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            // Those who wait for `crowded` are in line: whoever was active goes to its end.
            () = answered.notified() => {}
            () = crowded.notified() => {
                if !busy.load(Ordering::Relaxed) {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                break connection.await;
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
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
