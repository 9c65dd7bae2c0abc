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
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
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

/// How long a connection has been without a request.
#[derive(Clone)]
struct Waiting {
    began: Instant,
    /// Milliseconds from `began`; [`ANSWERING`] while there is a request.
    since_ms: Arc<AtomicU64>,
}

/// A connection as its listener sees it.
struct Served {
    waiting: Waiting,
    task: AbortHandle,
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

    /// None while there is a request.
    fn waited_ms(&self) -> Option<u64> {
        match self.since_ms.load(Ordering::Relaxed) {
            ANSWERING => None,
            since_ms => Some(self.now_ms().saturating_sub(since_ms)),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(ANSWERING - 1)
    }
}

impl Served {
    fn is_open(&self) -> bool {
        !self.task.is_finished()
    }

    fn has_waited(&self, timeout: Duration) -> bool {
        self.waiting
            .waited_ms()
            .is_some_and(|ms| u128::from(ms) >= timeout.as_millis())
    }
}

/// Serves connections for ever; a dropped future closes them all. Where there are as many as allowed, the one that has been
/// idle for longest makes room for the next, so that idle connections keep nobody out.
pub async fn serve<A, H, R>(listener: A, bounds: Bounds, handle: H)
where
    A: Accept,
    H: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let handle: Handler = Arc::new(move |request| Box::pin(handle(request)));
    let mut tasks = tokio::task::JoinSet::new();
    let mut served: Vec<Served> = Vec::new();
    let mut sweep = tokio::time::interval(bounds.header_timeout / 10);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = None;
    loop {
        tokio::select! {
            stream = accept(&listener), if next.is_none() => next = Some(stream),
            _ = sweep.tick(), if !served.is_empty() => served.retain(|connection| {
                if connection.has_waited(bounds.header_timeout) {
                    connection.task.abort();
                }
                connection.is_open()
            }),
        }
        while tasks.try_join_next().is_some() {}
        if next.is_some() && served.len() >= bounds.connections_max {
            make_room(&mut served);
        }
        // Where all are being answered, it waits for the next sweep.
        if served.len() < bounds.connections_max
            && let Some(stream) = next.take()
        {
            let waiting = Waiting::new();
            let task = tasks.spawn(serve_one(stream, Arc::clone(&handle), waiting.clone()));
            served.push(Served { waiting, task });
        }
    }
}

/// Closes the connection that has been without a request for longest, if all are open and any is without.
fn make_room(served: &mut Vec<Served>) {
    let open_before = served.len();
    served.retain(Served::is_open);
    if served.len() == open_before
        && let Some(index) = idlest(served)
    {
        served.swap_remove(index).task.abort();
    }
}

/// The connection that has been without a request for longest; none where all are being answered.
fn idlest(served: &[Served]) -> Option<usize> {
    let waits = served
        .iter()
        .enumerate()
        .filter_map(|(index, connection)| Some((connection.waiting.waited_ms()?, index)));
    waits.max().map(|(_, index)| index)
}

async fn serve_one(stream: Box<dyn Connection>, handle: Handler, waiting: Waiting) {
    let service = service_fn(move |request| {
        waiting.answers();
        let answer = handle(request);
        let waiting = waiting.clone();
        async move {
            let answer = answer.await;
            waiting.waits();
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
