//! Desired things as map values.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use lb_common::abi::{
    self, AddrV4, AddrV6, Be16, Be32, NO_REAL, Name, PortRange, Slot, real_flags, service_flags,
};
use lb_common::abi::{Addr as _, PROTO_TCP, PROTO_UDP, filter_index};
use lb_common::policy::clock;

use super::plan::Clock;
use crate::config::model::Protocol;
use crate::desired::{Effective, Real, RealKey, Service};

/// Half-open connections expire after this many milliseconds.
pub const HALF_OPEN_MS: u64 = 60_000;
/// Closed and reset ones after this many. Half-closed ones too, when neither side sends.
const CLOSING_MS: u64 = 30_000;

/// Longest label that fits a [`Name`] beside its marks.
const LONGEST: usize = 120;
/// Byte of a real server's name that says that it is the fallback server.
const FALLBACK: usize = 127;
/// Byte of a real server's name that says its address family: 4 or 6.
const FAMILY: usize = 126;

/// An address as in [`abi::Real::address`].
pub fn words(address: IpAddr) -> [Be32; 4] {
    match address {
        IpAddr::V4(v4) => AddrV4::from(v4).to_words(),
        IpAddr::V6(v6) => AddrV6::from(v6).to_words(),
    }
}

/// The filter's bucket of an address.
pub fn bucket(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(v4) => filter_index(AddrV4::from(v4).folded()),
        IpAddr::V6(v6) => filter_index(AddrV6::from(v6).folded()),
    }
}

/// The mask of a prefix length, IPv4 in the first word.
pub fn mask(length: u8) -> [Be32; 4] {
    let word = |i: u32| {
        let bits = (length as u32).saturating_sub(32 * i).min(32);
        Be32::new(u32::MAX.checked_shl(32 - bits).unwrap_or(0))
    };
    [word(0), word(1), word(2), word(3)]
}

/// The record of a service whose slots are at `first`.
pub fn service(
    service: &Service,
    clock: Clock,
    slots: (u32, u32),
    fallback: Option<u32>,
) -> abi::Service {
    let ticks = |ms: u64| clock::ticks_from_ms(ms, clock.hz, clock.tick_shift);
    let persistence = service.persistence;
    let persistent = if persistence.is_some() { service_flags::PERSISTENT } else { 0 };
    let (snat_first, snat_last) = (*service.snat_ports.start(), *service.snat_ports.end());
    abi::Service {
        flags: service_flags::ENABLED | persistent,
        mode: service.mode,
        select: service.slots.select,
        persist_prefix: persistence.map_or(0, |p| p.prefix_length),
        slots_first: slots.0,
        slots_count: slots.1,
        fallback: fallback.unwrap_or(NO_REAL),
        idle: ticks(service.idle.as_millis() as u64),
        half_open: ticks(HALF_OPEN_MS),
        closing: ticks(CLOSING_MS),
        udp_idle: ticks(service.udp_idle.as_millis() as u64),
        persist: persistence.map_or(0, |p| ticks(p.timeout.as_millis() as u64)),
        snat_first,
        // Without a source address there is nothing to allocate ports of.
        snat_count: match service.source {
            Some(_) => (snat_last - snat_first).saturating_add(1),
            None => 0,
        },
        persist_mask: persistence.map_or([Be32::default(); 4], |p| mask(p.prefix_length)),
        source: service.source.map_or([Be32::default(); 4], words),
        ..abi::Service::default()
    }
}

/// The record of a real server. Where the next hop is not known, that of `before` stays: frames to
/// a neighbour that is away for a moment do no harm.
pub fn real(
    real: &Real,
    service: u32,
    interface: impl Fn(u32) -> Option<u32>,
    before: Option<&abi::Real>,
) -> abi::Real {
    let mut value = abi::Real {
        flags: real.flags,
        service,
        port: Be16::new(real.key.port),
        mode: real.key.mode,
        address: words(real.key.address),
        maximum_connections: real.maximum_connections,
        minimum_connections: real.minimum_connections,
        ..abi::Real::default()
    };
    if let Some((hop, slot)) = real.hop.and_then(|hop| Some((hop, interface(hop.ifindex)?))) {
        value.flags |= real_flags::NEIGHBOUR;
        value.dst_mac = hop.dst_mac.into();
        value.src_mac = hop.src_mac.into();
        value.ifindex = hop.ifindex;
        value.interface = slot as u16;
        value.vlan = hop.vlan;
        value.mtu = hop.mtu;
    } else if let Some(before) = before {
        value.flags |= before.flags & real_flags::NEIGHBOUR;
        value.dst_mac = before.dst_mac;
        value.src_mac = before.src_mac;
        value.ifindex = before.ifindex;
        value.interface = before.interface;
        value.vlan = before.vlan;
        value.mtu = before.mtu;
    }
    value
}

/// Whether a real server has just failed: from here on its persistence entries are stale.
pub fn went_down(before: &abi::Real, after: &Real) -> bool {
    let accepting = real_flags::ACCEPT | real_flags::ACCEPT_PERSISTENT;
    after.effective == Effective::Out
        && (before.flags & accepting != 0 || after.flags & !before.flags & real_flags::RESET != 0)
}

/// A service's ports.
pub fn ranges(service: &Service, index: u32) -> Vec<PortRange> {
    service.ports.iter().flat_map(|ports| spans(service.protocol, ports, index)).collect()
}

/// Ports of one or two protocols.
pub fn spans(
    protocol: Protocol,
    ports: &RangeInclusive<u16>,
    index: u32,
) -> impl Iterator<Item = PortRange> {
    let protocols: &[u8] = match protocol {
        Protocol::Tcp => &[PROTO_TCP],
        Protocol::Udp => &[PROTO_UDP],
        Protocol::TcpUdp => &[PROTO_TCP, PROTO_UDP],
    };
    let (first, last) = (*ports.start(), *ports.end());
    protocols.iter().map(move |protocol| PortRange {
        low: PortRange::composite(*protocol, first),
        high: PortRange::composite(*protocol, last),
        service: index,
        ..PortRange::default()
    })
}

/// A service's slots, with indices instead of positions.
pub fn slots(service: &Service, indices: &[u32]) -> Vec<Slot> {
    let slot =
        |(position, weight): &(usize, u32)| Slot { real: indices[*position], weight: *weight };
    service.slots.entries.iter().map(slot).collect()
}

/// A label as a map value.
pub fn name(label: &str) -> Name {
    let mut bytes = [0; 128];
    let end = (0..=label.len().min(LONGEST)).rev().find(|i| label.is_char_boundary(*i));
    let text = &label.as_bytes()[..end.unwrap_or(0)];
    bytes[..text.len()].copy_from_slice(text);
    Name { bytes }
}

/// A real server's label and marks as a map value.
pub fn real_name(key: &RealKey) -> Name {
    let mut name = name(&key.label);
    name.bytes[FALLBACK] = key.fallback as u8;
    name.bytes[FAMILY] = if key.address.is_ipv4() { 4 } else { 6 };
    name
}

/// The label in a map value; `None`: the element is not in use.
pub fn label(name: &Name) -> Option<String> {
    let text = &name.bytes[..LONGEST];
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(LONGEST);
    (end > 0).then(|| String::from_utf8_lossy(&text[..end]).into_owned())
}

/// The identity of a real server from its name and record.
pub fn key(name: &Name, real: &abi::Real, service: &str) -> Option<RealKey> {
    let address = match name.bytes[FAMILY] {
        4 => IpAddr::V4(AddrV4::from_words(&real.address).into()),
        _ => IpAddr::V6(AddrV6::from_words(&real.address).into()),
    };
    Some(RealKey {
        service: service.into(),
        label: label(name)?.into(),
        address,
        port: real.port.get(),
        mode: real.mode,
        fallback: name.bytes[FALLBACK] != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_as_many_bits_as_asked_for() {
        let bits = |length| mask(length).map(|word| word.get());
        assert_eq!(bits(0), [0; 4]);
        assert_eq!(bits(24), [0xffff_ff00, 0, 0, 0]);
        assert_eq!(bits(32), [u32::MAX, 0, 0, 0]);
        assert_eq!(bits(64), [u32::MAX, u32::MAX, 0, 0]);
        assert_eq!(bits(128), [u32::MAX; 4]);
    }

    #[test]
    fn names_survive_the_map() {
        for text in ["DICOM1", "Röntgen-Archiv", &"x".repeat(120)] {
            assert_eq!(label(&name(text)).as_deref(), Some(text));
        }
        assert_eq!(label(&Name { bytes: [0; 128] }), None);
        for address in ["10.0.0.9", "2001:db8::"] {
            let key = RealKey {
                service: "S".into(),
                label: "R".into(),
                address: address.parse().unwrap(),
                port: 104,
                mode: 1,
                fallback: true,
            };
            let value = abi::Real {
                address: words(key.address),
                port: Be16::new(104),
                mode: 1,
                ..abi::Real::default()
            };
            assert_eq!(super::key(&real_name(&key), &value, "S"), Some(key));
        }
    }
}
