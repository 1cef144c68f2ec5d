//! A crowd at a port: thousands of connections that ask for nothing, and come back whenever they are closed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

/// Of each kind.
const CROWD: usize = 1_000;
/// Where probes come from, and a half of the crowd.
pub const PROBER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
/// Between two looks.
pub const PACE: Duration = Duration::from_millis(20);

/// What a connection of the crowd does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Nothing.
    Idle,
    /// It sends most of a large head.
    HalfOpen,
    /// It sends a head byte by byte.
    Slow,
}

/// Three thousand connections that come back whenever they are closed, for as long as this value lives.
pub struct Crowd {
    open: Arc<AtomicUsize>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Crowd {
    /// At these addresses by turns; half of them from the prober's own address.
    pub fn at(addresses: &[SocketAddr]) -> Self {
        raise_the_limit_of_files();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let open = Arc::<AtomicUsize>::default();
        for number in 0..3 * CROWD {
            let kind = [Kind::Idle, Kind::HalfOpen, Kind::Slow][number % 3];
            let host = u8::try_from(number % 250).expect("a byte");
            let source = if number / 3 % 2 == 0 { PROBER } else { Ipv4Addr::new(127, 0, 0, 2 + host) };
            let (to, open) = (addresses[number / 6 % addresses.len()], open.clone());
            runtime.spawn(async move {
                loop {
                    // Whatever ends it, it comes back, and not all of them at once.
                    let _ = stay(kind, source, to, &open).await;
                    tokio::time::sleep(Duration::from_millis(3_000 + number as u64 * 7_919 % 3_000)).await;
                }
            });
        }
        let began = Instant::now();
        while open.load(Ordering::Relaxed) < 3 * CROWD {
            assert!(began.elapsed() < Duration::from_secs(60), "{open:?} of the crowd have come");
            std::thread::park_timeout(PACE);
        }
        Self { open, runtime: Some(runtime) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        println!("{} connections in all", self.open.load(Ordering::Relaxed));
    }
}

/// One connection until it is closed.
async fn stay(kind: Kind, source: Ipv4Addr, to: SocketAddr, opened: &AtomicUsize) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let mut stream = socket.connect(to).await?;
    opened.fetch_add(1, Ordering::Relaxed);
    match kind {
        Kind::Idle => {}
        Kind::HalfOpen => {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-long: ").await?;
            stream.write_all(&[b'x'; 125_000]).await?;
        }
        Kind::Slow => {
            for byte in b"GET /metrics HTTP/1.1\r\nhost: somewhere.example.org\r\n".iter().cycle() {
                stream.write_all(std::slice::from_ref(byte)).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    let mut rest = [0; 64];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

fn raise_the_limit_of_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain system calls on a value of ours.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max.min(65_536);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    assert!(limit.rlim_cur > 4_000, "{} files are too few for this test", limit.rlim_cur);
}
