//! HTTP/1.1 listeners with every bound in one place: connections, header size and time.
//!
//! Connections that wait for a request are looked over ten times in a header's time, by one timer for all of them: a timer
//! for each would be set, moved and taken back with every request.

use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections served at once.
    pub connections_max: usize,
    /// From the connection, or the last answer on it, to a complete request header. Up to a tenth more.
    pub header_timeout: Duration,
}

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// On an address.
    #[error(
        "can't listen on {address} ({setting}): {source}; choose an address of this host and a port that nothing else uses"
    )]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// The variable that says so.
        setting: &'static str,
        /// Why.
        source: io::Error,
    },
    /// On a socket in the file system.
    #[error("can't listen on unix:{path} ({setting}): {source}; choose a path in a folder that this user may write", path = path.display())]
    Unix {
        /// Where.
        path: PathBuf,
        /// The variable that says so.
        setting: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A listening socket in the file system that goes when this does.
#[derive(Debug)]
pub struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
}

const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Whoever is in the sidecar's group may meter.
const SOCKET_MODE: u32 = 0o660;
const SOCKET_BACKLOG: u32 = 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Opens `address`, which `setting` names.
pub async fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError::Tcp {
            address,
            setting,
            source,
        })
}

/// The metering endpoint's listener: of either kind.
#[derive(Debug)]
pub enum Bound {
    /// On an address.
    Tcp(TcpListener),
    /// In the file system.
    Unix(SocketFile),
}

impl Bound {
    /// Where it listens, in the form of the setting.
    pub fn name(&self) -> String {
        match self {
            Self::Tcp(listener) => listener
                .local_addr()
                .map(|address| address.to_string())
                .unwrap_or_default(),
            Self::Unix(file) => format!("unix:{}", file.path.display()),
        }
    }
}

/// Opens a socket at `path`, which `setting` names, and creates its folder. A socket that nobody listens on any more is
/// replaced; one that is in use, or another file, is not.
pub async fn bind_file(path: &Path, setting: &'static str) -> Result<SocketFile, ListenError> {
    open_socket(path).await.map_err(|source| ListenError::Unix {
        path: path.to_owned(),
        setting,
        source,
    })
}

async fn open_socket(path: &Path) -> io::Result<SocketFile> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    remove_stale(path).await?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    // Nobody can connect before the mode is right: until then nothing listens.
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(SocketFile {
        listener: socket.listen(SOCKET_BACKLOG)?,
        path: path.to_owned(),
    })
}

async fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::other(
                "there is a file that is no socket, and it is not replaced",
            ));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens there",
        )),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the socket is gone already");
        }
    }
}

/// A socket that takes connections.
pub trait Accept: Send + 'static {
    /// The next one.
    fn next(&self) -> impl Future<Output = io::Result<Box<dyn Connection>>> + Send;
}

/// A connection, of whatever kind.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl Connection for TcpStream {}
impl Connection for UnixStream {}

/// One listener's answers. Its type says nothing of listener and handler, so that HTTP is compiled once for all of them.
type Handler = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

impl Accept for TcpListener {
    async fn next(&self) -> io::Result<Box<dyn Connection>> {
        let (stream, _) = self.accept().await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        Ok(Box::new(stream))
    }
}

impl Accept for UnixListener {
    async fn next(&self) -> io::Result<Box<dyn Connection>> {
        Ok(Box::new(self.accept().await?.0))
    }
}

impl Accept for SocketFile {
    async fn next(&self) -> io::Result<Box<dyn Connection>> {
        self.listener.next().await
    }
}

/// Serves connections for ever; a dropped future closes them all. Where there are as many as allowed, the one that has been
/// idle for longest makes room for the next, so that idle connections keep nobody out; where none is idle, one closes with
/// its next answer.
pub async fn serve<A, H, R>(listener: A, bounds: Bounds, handle: H)
where
    A: Accept,
    H: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let handle: Handler = Arc::new(move |request| Box::pin(handle(request)));
    let slots = Arc::new(Semaphore::new(bounds.connections_max));
    let mut tasks = tokio::task::JoinSet::new();
    let mut open = Open(Vec::new());
    let mut sweep = tokio::time::interval(bounds.header_timeout / 10);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = None;
    loop {
        tokio::select! {
            stream = accept(&listener), if next.is_none() => {
                next = Some(stream);
                if slots.available_permits() == 0 {
                    open.make_room();
                }
            }
            slot = Arc::clone(&slots).acquire_owned(), if next.is_some() => {
                let slot = slot.expect("the semaphore is never closed");
                let stream = next.take().expect("this branch has one");
                let guest = Arc::new(Guest::new());
                let task = tasks.spawn(serve_one(slot, stream, Arc::clone(&handle), Arc::clone(&guest)));
                open.0.push((guest, task));
            }
            _ = sweep.tick(), if !open.0.is_empty() => {
                open.sweep(bounds.header_timeout);
                if next.is_some() {
                    open.make_room();
                }
            }
        }
        while tasks.try_join_next().is_some() {}
    }
}

/// The connections there are, and some that have ended.
struct Open(Vec<(Arc<Guest>, AbortHandle)>);

impl Open {
    /// Closes what has been without a request for too long.
    fn sweep(&mut self, timeout: Duration) {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.0.retain(|(guest, task)| {
            if guest.idle_ms().is_some_and(|idle| idle >= timeout_ms) {
                task.abort();
            }
            !task.is_finished()
        });
    }

    fn make_room(&mut self) {
        self.0.retain(|(_, task)| !task.is_finished());
        let idle = self
            .0
            .iter()
            .filter_map(|(guest, task)| guest.idle_ms().map(|idle| (idle, task)));
        if let Some((_, longest)) = idle.max_by_key(|(idle, _)| *idle) {
            longest.abort();
        } else if let Some((guest, _)) = self.0.first() {
            guest.leaves.store(true, Ordering::Relaxed);
        }
    }
}

/// What a listener knows of one connection.
struct Guest {
    began: Instant,
    /// Since when it has been without a request, in milliseconds from `began`; [`ANSWERING`] while it has one.
    idle_since_ms: AtomicU64,
    /// Whether it closes with its next answer.
    leaves: AtomicBool,
}

const ANSWERING: u64 = u64::MAX;

impl Guest {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            idle_since_ms: AtomicU64::new(0),
            leaves: AtomicBool::new(false),
        }
    }

    fn asks(&self) {
        self.idle_since_ms.store(ANSWERING, Ordering::Relaxed);
    }

    fn is_answered(&self) {
        self.idle_since_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn idle_ms(&self) -> Option<u64> {
        match self.idle_since_ms.load(Ordering::Relaxed) {
            ANSWERING => None,
            since => Some(self.now_ms().saturating_sub(since)),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(ANSWERING - 1)
    }
}

/// Serves one connection to its end.
async fn serve_one(
    slot: OwnedSemaphorePermit,
    stream: Box<dyn Connection>,
    handle: Handler,
    guest: Arc<Guest>,
) {
    let _slot = slot;
    let guest = &*guest;
    let service = service_fn(move |request| {
        guest.asks();
        let answer = handle(request);
        async move {
            let mut answer = answer.await;
            if guest.leaves.load(Ordering::Relaxed) {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(CONNECTION, close);
            }
            guest.is_answered();
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

/// The next connection. Errors of accept (out of descriptors, a peer that is gone) pass; a busy loop would not help.
async fn accept<A: Accept>(listener: &A) -> Box<dyn Connection> {
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        connections_max: 1,
        header_timeout: Duration::from_millis(200),
    };
    const SLOW_ANSWER: Duration = Duration::from_millis(600);
    const PATIENCE: Duration = Duration::from_secs(30);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// A listener with room for one connection, whose answers take [`SLOW_ANSWER`], and what tells of each request.
    async fn listening() -> (SocketAddr, Arc<Notify>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Notify::new());
        let tell = Arc::clone(&asked);
        let handle = move |_| {
            tell.notify_one();
            async {
                tokio::time::sleep(SLOW_ANSWER).await;
                Response::new(Full::new(Bytes::from_static(b"answered")))
            }
        };
        tokio::spawn(serve(listener, BOUNDS, handle));
        (address, asked)
    }

    async fn read_all(client: &mut TcpStream) -> Vec<u8> {
        let mut received = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, client.read_to_end(&mut received)).await;
        closed.expect("the connection is closed").unwrap();
        received
    }

    /// How long a connection stays open after `sent`, and what comes over it.
    async fn served(sent: &[u8]) -> (Duration, Vec<u8>) {
        let (address, _) = listening().await;
        let mut client = TcpStream::connect(address).await.unwrap();
        let begin = Instant::now();
        client.write_all(sent).await.unwrap();
        let received = read_all(&mut client).await;
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
    async fn an_idle_connection_makes_room_for_the_next_at_once() {
        let (address, _) = listening().await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        let mut next = TcpStream::connect(address).await.unwrap();
        let begin = Instant::now();
        next.write_all(REQUEST).await.unwrap();
        assert!(read_all(&mut idle).await.is_empty());
        assert!(begin.elapsed() < SLOW_ANSWER);
        assert!(read_all(&mut next).await.ends_with(b"answered"));
    }

    #[tokio::test]
    async fn a_busy_connection_makes_room_with_its_answer() {
        let (address, asked) = listening().await;
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(REQUEST).await.unwrap();
        asked.notified().await;
        let mut next = TcpStream::connect(address).await.unwrap();
        next.write_all(REQUEST).await.unwrap();
        for client in [&mut busy, &mut next] {
            assert!(read_all(client).await.ends_with(b"answered"));
        }
    }
}
