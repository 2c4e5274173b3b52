//! Questions about this host that need no running task: for checking a configuration.

use std::net::IpAddr;

use anyhow::Context;
use nix::sys::socket::SockaddrStorage;

/// An address of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Length of its subnet's prefix.
    pub prefix_length: u8,
}

/// Whether an interface of that name exists.
pub fn interface_exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

/// Every IPv4 and IPv6 address of this host.
///
/// # Errors
/// The kernel does not answer.
pub fn local_addresses() -> anyhow::Result<Vec<LocalAddress>> {
    let all = nix::ifaddrs::getifaddrs().context("cannot list this host's addresses")?;
    Ok(all
        .filter_map(|entry| {
            let address = ip(&entry.address?)?;
            let prefix_length = match ip(&entry.netmask?)? {
                IpAddr::V4(mask) => mask.to_bits().leading_ones(),
                IpAddr::V6(mask) => mask.to_bits().leading_ones(),
            };
            Some(LocalAddress {
                interface: entry.interface_name,
                address,
                prefix_length: u8::try_from(prefix_length).ok()?,
            })
        })
        .collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
}
