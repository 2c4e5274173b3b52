//! Small requests over connections of their own: what `tests::bench::connections` loads with. Threads
//! that block, because a thread with one connection at a time has nothing else to do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;

/// Bytes of a request and of its answer.
const MESSAGE: usize = 64;
/// Nothing takes this long; a lost packet must not end the measurement.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Parser)]
enum Cli {
    /// Answers one request of each connection and closes it
    Serve {
        #[arg(long, required = true)]
        listen: Vec<SocketAddr>,
        /// For each address
        #[arg(long, default_value_t = 16)]
        threads: usize,
    },
    /// Connects, asks, waits for the answer and the end, again and again; a line of JSON at the end
    Ask {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        threads: usize,
        #[arg(long)]
        milliseconds: u64,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli::Serve { listen, threads } => serve(&listen, threads),
        Cli::Ask { to, threads, milliseconds } => {
            ask(to, threads, Duration::from_millis(milliseconds))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(listen: &[SocketAddr], threads: usize) -> Result<()> {
    let bind =
        |to: &SocketAddr| TcpListener::bind(to).with_context(|| format!("listening on {to}"));
    let listeners = listen.iter().map(bind).collect::<Result<Vec<_>>>()?;
    println!("listening");
    thread::scope(|scope| {
        for listener in &listeners {
            for _ in 0..threads {
                scope.spawn(move || {
                    loop {
                        // A client that has gone is no reason to stop.
                        let _ = listener.accept().and_then(|(stream, _)| answer(stream));
                    }
                });
            }
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut message = [0; MESSAGE];
    stream.read_exact(&mut message)?;
    stream.write_all(&message)
}

/// One connection, from its first packet to its last.
fn request(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(&[7; MESSAGE])?;
    let mut answer = Vec::with_capacity(MESSAGE);
    stream.read_to_end(&mut answer)?; // the server closes first and keeps the port in TIME_WAIT
    if answer != [7; MESSAGE] {
        return Err(std::io::Error::other("not what was sent"));
    }
    Ok(())
}

/// Microseconds of each request, and what went wrong.
fn loop_until(end: Instant, to: SocketAddr) -> (Vec<f64>, Vec<String>) {
    let (mut took, mut failed) = (Vec::new(), Vec::new());
    loop {
        let start = Instant::now();
        if start >= end {
            return (took, failed);
        }
        match request(to) {
            Ok(()) => took.push(start.elapsed().as_secs_f64() * 1e6),
            Err(error) => failed.push(format!("{error} after {:?}", start.elapsed())),
        }
    }
}

fn ask(to: SocketAddr, threads: usize, length: Duration) -> Result<()> {
    let start = Instant::now();
    let results: Vec<_> = thread::scope(|scope| {
        let loops: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| loop_until(start + length, to))).collect();
        loops.into_iter().map(|one| one.join().expect("a loop does not panic")).collect()
    });
    let seconds = start.elapsed().as_secs_f64();
    let failed: usize = results.iter().map(|(_, failed)| failed.len()).sum();
    let error = results.iter().find_map(|(_, failed)| failed.first().cloned());
    let mut took: Vec<f64> = results.into_iter().flat_map(|(took, _)| took).collect();
    took.sort_by(f64::total_cmp);
    let quantile = |q: f64| {
        let at = (took.len() as f64 * q) as usize;
        took.get(at.min(took.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let spent = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    let cpu = spent(usage.user_time()) + spent(usage.system_time());
    println!(
        "{}",
        json!({
            "done": took.len(), "failed": failed, "error": error, "seconds": seconds, "cpu_seconds": cpu,
            "p50_us": quantile(0.5), "p99_us": quantile(0.99), "p999_us": quantile(0.999),
        })
    );
    Ok(())
}
