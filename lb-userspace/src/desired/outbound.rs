//! Outbound SNAT: rules as records of the data plane. All that leaves with one address is one
//! service, and each real server that opens connections is a real server of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{mode, real_flags};

use super::{Effective, Real, RealKey, Service, Slots};
use crate::config::model::{Config, Protocol};

/// What the label of such a service begins with; the address that it leaves with follows.
pub const LABEL_PREFIX: &str = "outbound_snat ";
/// Established TCP connections (RFC 5382, REQ-5).
const IDLE: Duration = Duration::from_secs(7440);
/// UDP flows (RFC 4787, REQ-5).
const UDP_IDLE: Duration = Duration::from_secs(300);

/// Destination ports of one protocol.
pub type Ports = (Protocol, RangeInclusive<u16>);

/// Everything that leaves with one address.
#[derive(Clone, Debug, PartialEq)]
pub struct Outbound {
    /// Its records. It has no VIP: nothing leads to it but the sources' own packets.
    pub service: Service,
    /// Which connections are translated, by position in the service's real servers; in the rules'
    /// order, and they may overlap.
    pub ports: Vec<Vec<Ports>>,
}

/// The rules of the file, by the address that they leave with.
pub fn outbound(config: &Config) -> Vec<Outbound> {
    let mut targets: BTreeMap<IpAddr, BTreeMap<IpAddr, Vec<Ports>>> = BTreeMap::new();
    for rule in &config.outbound_snat {
        let sources = targets.entry(rule.to_source).or_default();
        for source in &rule.sources {
            let ports = rule.ports.iter().map(|ports| (rule.protocol, ports.clone()));
            sources.entry(*source).or_default().extend(ports);
        }
    }
    targets.into_iter().map(|(target, sources)| one(config, target, sources)).collect()
}

fn one(config: &Config, target: IpAddr, sources: BTreeMap<IpAddr, Vec<Ports>>) -> Outbound {
    let label: Arc<str> = format!("{LABEL_PREFIX}{target}").into();
    let reals = sources.keys().map(|source| real(&label, *source)).collect();
    Outbound {
        service: Service {
            label,
            address: target,
            ports: Vec::new(),
            protocol: Protocol::TcpUdp,
            mode: mode::OUTBOUND,
            persistence: None,
            idle: IDLE,
            udp_idle: UDP_IDLE,
            source: Some(target),
            snat_ports: config.global.snat_ports.clone(),
            drop_persistence: false,
            reals,
            slots: Slots::default(),
            fallback: None,
        },
        ports: sources.into_values().collect(),
    }
}

fn real(service: &Arc<str>, source: IpAddr) -> Real {
    Real {
        key: RealKey {
            service: service.clone(),
            label: source.to_string().into(),
            address: source,
            port: 0,
            mode: mode::OUTBOUND,
            fallback: false,
        },
        // Nobody selects it, and its health does not matter: it speaks first.
        flags: real_flags::ACCEPT,
        effective: Effective::InRotation,
        hop: None, // each connection has its own
        maximum_connections: 0,
        minimum_connections: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::OutboundSnat;
    use crate::desired::tests::World;

    fn rule(sources: &[&str], ports: &[RangeInclusive<u16>], to: &str) -> OutboundSnat {
        OutboundSnat {
            sources: sources.iter().map(|source| source.parse().unwrap()).collect(),
            protocol: Protocol::Tcp,
            ports: ports.to_vec(),
            to_source: to.parse().unwrap(),
        }
    }

    #[test]
    fn rules_with_one_address_are_one_service_with_a_server_for_each_source() {
        let mut world = World::new(&[1]);
        world.config.outbound_snat = vec![
            rule(&["10.0.1.2", "10.0.1.1"], &[104..=104], "10.0.0.50"),
            rule(&["10.0.1.1"], &[11112..=11112], "10.0.0.50"),
            rule(&["10.0.1.1"], &[80..=80], "10.0.0.51"),
        ];
        let found = world.desired().outbound;
        let labels: Vec<&str> = found.iter().map(|o| &*o.service.label).collect();
        assert_eq!(labels, ["outbound_snat 10.0.0.50", "outbound_snat 10.0.0.51"]);
        let sources: Vec<&str> = found[0].service.reals.iter().map(|r| &*r.key.label).collect();
        assert_eq!(sources, ["10.0.1.1", "10.0.1.2"]);
        let ports = |source: usize| {
            found[0].ports[source].iter().map(|(_, ports)| *ports.start()).collect::<Vec<_>>()
        };
        assert_eq!((ports(0), ports(1)), (vec![104, 11112], vec![104]));
    }
}
