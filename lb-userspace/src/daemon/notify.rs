//! The few words that systemd wants to hear (sd_notify(3)): a datagram to `NOTIFY_SOCKET`.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::debug;

/// Start-up is done.
pub fn ready() {
    say("READY=1\nSTATUS=forwarding");
}

/// A reload has begun. systemd compares the time with its own (`Type=notify-reload`).
pub fn reloading() {
    let clock = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let now = clock.map_or(Duration::ZERO, Duration::from);
    say(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
}

/// The daemon is about to end.
pub fn stopping() {
    say("STOPPING=1\nSTATUS=the data plane goes on forwarding");
}

/// The event loop turns (`WatchdogSec=`).
pub fn alive() {
    if env::var_os("WATCHDOG_USEC").is_some() {
        say("WATCHDOG=1");
    }
}

fn say(words: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let send = || {
        let bytes = path.as_bytes();
        let address = match bytes.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(words.as_bytes(), &address)
    };
    if let Err(error) = send() {
        debug!(%error, "cannot notify systemd");
    }
}
