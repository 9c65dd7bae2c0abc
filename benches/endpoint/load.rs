//! The load generator: keep-alive connections on one thread, one request at a time on each, nothing allocated per request.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::requests::Requests;

/// What to ask, over how many connections, and for how long.
#[derive(Clone, Copy)]
pub struct Load {
    pub connections: u32,
    pub requests: Requests,
    pub length: Duration,
    /// Ends the load before its time.
    pub count_max: Option<u32>,
}

/// What a load came to.
pub struct Measured {
    pub count: u32,
    /// The processor time that the load generator itself took.
    pub own_cpu_seconds: f64,
    length: Duration,
    by_us: Vec<u32>,
}

impl Load {
    /// Asks until the time is over, or the count is reached. Any answer but 200 ends the bench.
    pub fn run(&self, address: SocketAddr) -> Measured {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let measured = Rc::new(RefCell::new(Measured::new()));
        let cpu_before = cpu_seconds("self");
        let begin = Instant::now();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let end = begin + self.length;
            let connections: Vec<_> = (0..self.connections)
                .map(|_| ask(*self, address, end, Rc::clone(&measured)))
                .map(tokio::task::spawn_local)
                .collect();
            for connection in connections {
                connection.await.unwrap();
            }
        });
        let mut measured = Rc::into_inner(measured).unwrap().into_inner();
        measured.length = begin.elapsed();
        measured.own_cpu_seconds = cpu_seconds("self") - cpu_before;
        measured
    }
}

async fn ask(load: Load, address: SocketAddr, end: Instant, measured: Rc<RefCell<Measured>>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut request, mut answer) = (Vec::new(), Vec::new());
    loop {
        request.clear();
        (load.requests)(unused_number(), &mut request);
        let start = Instant::now();
        let count = measured.borrow().count;
        if start >= end || load.count_max.is_some_and(|max| count >= max) {
            return;
        }
        stream.write_all(&request).await.unwrap();
        read_answer(&stream, &mut answer).await;
        assert!(
            answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        measured.borrow_mut().add(start.elapsed());
    }
}

impl Measured {
    fn new() -> Self {
        Self {
            count: 0,
            own_cpu_seconds: 0.0,
            length: Duration::ZERO,
            by_us: vec![0; 100_000],
        }
    }

    fn add(&mut self, taken: Duration) {
        let us = usize::try_from(taken.as_micros()).unwrap_or(usize::MAX);
        let last = self.by_us.len() - 1;
        self.by_us[us.min(last)] += 1;
        self.count += 1;
    }

    /// Answers per second.
    pub fn rate(&self) -> f64 {
        f64::from(self.count) / self.length.as_secs_f64()
    }

    /// The latency that `share` of the requests stayed under, in milliseconds.
    pub fn percentile_ms(&self, share: f64) -> f64 {
        let wanted = f64::from(self.count) * share;
        let mut seen = 0;
        let us = self.by_us.iter().position(|count| {
            seen += count;
            f64::from(seen) >= wanted
        });
        f64::from(u32::try_from(us.unwrap_or(self.by_us.len())).unwrap()) / 1000.0
    }
}

/// Keys have to be new over all loads of a run.
fn unused_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

async fn read_answer(stream: &TcpStream, answer: &mut Vec<u8>) {
    answer.clear();
    while !is_complete(answer) {
        stream.readable().await.unwrap();
        match stream.try_read_buf(answer) {
            Ok(0) => panic!("the sidecar closed the connection"),
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

fn is_complete(answer: &[u8]) -> bool {
    const LENGTH: &[u8] = b"content-length: ";
    let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return false;
    };
    let at = answer[..head]
        .windows(LENGTH.len())
        .position(|bytes| bytes == LENGTH)
        .expect("every answer of the sidecar has a length");
    let length = answer[at + LENGTH.len()..head]
        .iter()
        .take_while(|digit| digit.is_ascii_digit())
        .fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    answer.len() >= head + 4 + length
}

/// The processor time that a process has taken.
pub fn cpu_seconds(process: &str) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: f64 = [fields[11], fields[12]]
        .iter()
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum();
    ticks / TICKS_PER_SECOND
}
