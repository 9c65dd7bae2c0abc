//! HTTP/1.1 listeners with every bound in one place: connections, header size and time.

use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
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
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
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
/// idle for longest makes room for the next, so that idle connections keep nobody out.
pub async fn serve<A, H, R>(listener: A, bounds: Bounds, handle: H)
where
    A: Accept,
    H: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let handle: Handler = Arc::new(move |request| Box::pin(handle(request)));
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
        let (handle, crowded) = (Arc::clone(&handle), Arc::clone(&crowded));
        connections.spawn(async move {
            let _slot = slot;
            serve_one(stream, bounds, &handle, &crowded).await;
        });
    }
}

/// Serves one connection to its end, or until `crowded` picks it: it is closed if idle, and else with its next answer.
async fn serve_one(
    stream: Box<dyn Connection>,
    bounds: Bounds,
    handle: &Handler,
    crowded: &Notify,
) {
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
