//! Traffic whose every byte is checked. The client opens all connections before the first byte
//! goes out; each sends a stream that both ends compute and hash, and receives one back.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Parser};
use nix::sys::socket::{Backlog, setsockopt, sockopt};
use sha2::{Digest as _, Sha256};

const CHUNK: usize = 64 * 1024;
/// Name of a server, padded with zeros.
const NAME: usize = 16;
const HASH: usize = 32;
/// Nothing on a local network takes this long; a lost connection must end the test.
const TIMEOUT: Duration = Duration::from_secs(60);
const STACK: usize = 256 * 1024;

#[derive(Parser)]
enum Cli {
    /// A TCP server: receives, hashes, answers
    Serve(Serve),
    /// A TCP client: many connections, each verified; a line of JSON at the end
    Fetch(Fetch),
    /// A UDP server: answers with its name and the datagram
    UdpServe(Serve),
    /// A UDP client: each socket sends datagrams and verifies the answers
    UdpFetch(Fetch),
}

#[derive(Args)]
struct Serve {
    /// Addresses to listen on
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// What the server calls itself
    #[arg(long)]
    name: String,
}

#[derive(Args, Clone)]
struct Fetch {
    /// The service
    #[arg(long)]
    to: SocketAddr,
    /// How many at the same time
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Bytes that each connection sends (UDP: datagrams)
    #[arg(long, default_value_t = 0)]
    upload: u64,
    /// Bytes that each connection receives (UDP: bytes of a datagram)
    #[arg(long, default_value_t = 0)]
    download: u64,
    /// Stretches each direction of a transfer to about this long
    #[arg(long, default_value_t = 0)]
    seconds: u64,
}

fn main() -> ExitCode {
    let result = match Cli::parse() {
        Cli::Serve(serve) => listen(&serve),
        Cli::Fetch(fetch) => fetch_all(&fetch, fetch_one),
        Cli::UdpServe(serve) => udp_serve(&serve),
        Cli::UdpFetch(fetch) => fetch_all(&fetch, udp_fetch_one),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A stream of bytes that both ends can compute (xorshift64*).
struct Stream(u64);

impl Stream {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        for bytes in buffer.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
    }
}

/// Keeps a transfer from being over before something could happen to it.
struct Pace {
    started: Instant,
    length: u64,
    seconds: u64,
}

impl Pace {
    fn after(&self, done: u64) {
        let due = self.seconds as f64 * done as f64 / self.length.max(1) as f64;
        let due = self.started + Duration::from_secs_f64(due);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn send(stream: &mut TcpStream, seed: u64, length: u64, seconds: u64) -> Result<()> {
    let (mut bytes, mut hash) = (Stream::new(seed), Sha256::new());
    let mut buffer = vec![0; CHUNK];
    let pace = Pace { started: Instant::now(), length, seconds };
    let mut left = length;
    while left > 0 {
        let size = left.min(CHUNK as u64) as usize;
        bytes.fill(&mut buffer[..size]);
        hash.update(&buffer[..size]);
        stream.write_all(&buffer[..size]).context("sending")?;
        left -= size as u64;
        pace.after(length - left);
    }
    stream.write_all(&hash.finalize()).context("sending the hash")
}

/// Receives, and compares the hash of what came with the sender's and with what should have come.
fn receive(stream: &mut TcpStream, seed: u64, length: u64) -> Result<()> {
    let (mut bytes, mut got, mut want) = (Stream::new(seed), Sha256::new(), Sha256::new());
    let (mut buffer, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut left = length;
    while left > 0 {
        let size = left.min(CHUNK as u64) as usize;
        stream.read_exact(&mut buffer[..size]).with_context(|| format!("{left} bytes missing"))?;
        got.update(&buffer[..size]);
        bytes.fill(&mut expected[..size]);
        want.update(&expected[..size]);
        left -= size as u64;
    }
    let (got, want, mut told) = (got.finalize(), want.finalize(), [0; HASH]);
    stream.read_exact(&mut told).context("the hash is missing")?;
    ensure!(got == want, "the bytes that arrived are not those that were due");
    ensure!(got[..] == told, "the sender's hash differs");
    Ok(())
}

fn listen(serve: &Serve) -> Result<()> {
    let mut threads = Vec::new();
    for address in &serve.listen {
        let listener =
            TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        // The standard library's 128 places overflow when hundreds connect at once.
        nix::sys::socket::listen(&listener, Backlog::new(4096)?)?;
        let name = serve.name.clone();
        threads.push(thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let name = name.clone();
                let one = move || {
                    if let Err(error) = answer(stream, &name) {
                        eprintln!("{name}: {error:#}");
                    }
                };
                if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(one) {
                    eprintln!("no thread: {error}");
                }
            }
        }));
    }
    println!("listening");
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn answer(mut stream: TcpStream, name: &str) -> Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut head = [0; 32];
    match stream.read_exact(&mut head) {
        // A health check opens a connection and says nothing.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
        other => other.context("reading the request")?,
    }
    let word = |index: usize| {
        let bytes = head[index * 8..][..8].try_into().expect("eight bytes");
        u64::from_be_bytes(bytes)
    };
    let (seed, upload, download, seconds) = (word(0), word(1), word(2), word(3));
    let mut padded = [0; NAME];
    padded[..name.len().min(NAME)].copy_from_slice(&name.as_bytes()[..name.len().min(NAME)]);
    stream.write_all(&padded)?;
    receive(&mut stream, seed, upload)?;
    send(&mut stream, !seed, download, seconds)?;
    Ok(())
}

/// Runs `one` on all connections at once, and sums up.
fn fetch_all(fetch: &Fetch, one: fn(&Fetch, u64, &Barrier) -> Result<String>) -> Result<()> {
    let barrier = Arc::new(Barrier::new(fetch.connections));
    let threads: Vec<_> = (0..fetch.connections)
        .map(|number| {
            let (fetch, barrier) = (fetch.clone(), Arc::clone(&barrier));
            let seed = number as u64 + 1 + (u64::from(std::process::id()) << 32);
            let work = move || one(&fetch, seed, &barrier);
            thread::Builder::new().stack_size(STACK).spawn(work).context("no thread")
        })
        .collect::<Result<_>>()?;
    let (mut servers, mut errors) = (BTreeMap::<String, u32>::new(), Vec::new());
    for thread in threads {
        match thread.join() {
            Ok(Ok(server)) => *servers.entry(server).or_default() += 1,
            Ok(Err(error)) => errors.push(format!("{error:#}")),
            Err(_) => errors.push("a thread panicked".into()),
        }
    }
    let failed = errors.len();
    errors.truncate(5);
    println!(
        "{}",
        serde_json::json!({
            "ok": fetch.connections - failed,
            "failed": failed,
            "servers": servers,
            "errors": errors,
        })
    );
    if failed > 0 {
        bail!("{failed} of {} connections failed", fetch.connections);
    }
    Ok(())
}

fn fetch_one(fetch: &Fetch, seed: u64, all_open: &Barrier) -> Result<String> {
    let stream = TcpStream::connect_timeout(&fetch.to, TIMEOUT);
    all_open.wait();
    let mut stream = stream.context("connecting")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    for word in [seed, fetch.upload, fetch.download, fetch.seconds] {
        stream.write_all(&word.to_be_bytes())?;
    }
    let mut name = [0; NAME];
    stream.read_exact(&mut name).context("the server's name")?;
    send(&mut stream, seed, fetch.upload, fetch.seconds)?;
    receive(&mut stream, !seed, fetch.download)?;
    Ok(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned())
}

fn udp_serve(serve: &Serve) -> Result<()> {
    let mut threads = Vec::new();
    for address in &serve.listen {
        let socket =
            UdpSocket::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        // The default takes seven datagrams of 8 KB in fragments, each of which occupies a page.
        setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20))?;
        let name = serve.name.clone();
        threads.push(thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Ok((size, from)) = socket.recv_from(&mut buffer) {
                let mut reply = vec![0; NAME];
                reply[..name.len().min(NAME)]
                    .copy_from_slice(&name.as_bytes()[..name.len().min(NAME)]);
                reply.extend_from_slice(&buffer[..size]);
                let _ = socket.send_to(&reply, from);
            }
        }));
    }
    println!("listening");
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// Every datagram of one socket must come back whole, and from the same server.
fn udp_fetch_one(fetch: &Fetch, seed: u64, all_open: &Barrier) -> Result<String> {
    let any = if fetch.to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(fetch.to)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    all_open.wait();
    let mut stream = Stream::new(seed);
    let mut datagram = vec![0; fetch.download.max(8) as usize];
    let mut buffer = vec![0; 65536];
    let mut server = String::new();
    for _ in 0..fetch.upload.max(1) {
        stream.fill(&mut datagram);
        socket.send(&datagram).context("sending")?;
        let size = socket.recv(&mut buffer).context("no answer")?;
        ensure!(size >= NAME && buffer[NAME..size] == datagram, "another datagram came back");
        let name = String::from_utf8_lossy(&buffer[..NAME]).trim_end_matches('\0').to_owned();
        ensure!(server.is_empty() || server == name, "answers from {server} and from {name}");
        server = name;
    }
    Ok(server)
}
