//! What the runner is asked to check: one real server of one service.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::config::model::{CheckKind, Config, ForwardingMethod, HealthCheck, RealServer, Service};

/// A real server of a virtual service, and how to check it.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Label of the virtual service.
    pub service: String,
    /// Label of the real server, unique within the service.
    pub real: String,
    /// The real server's address.
    pub rip: IpAddr,
    /// The port to check: the check's own, the real server's, or the service's first; 0: blank.
    pub port: u16,
    /// The service's address.
    pub vip: IpAddr,
    /// The service's first port; 0: every port.
    pub vip_port: u16,
    /// The port that scripts are told: the check's or the real server's own, or 0 where blank.
    pub rpt: u16,
    /// Direct routing: the check goes through the VIP unless it says `via: rip`.
    pub dr: bool,
    /// The check.
    pub check: Arc<HealthCheck>,
}

impl Target {
    /// The targets of a configuration: every real server of every enabled service.
    pub fn all(config: &Config) -> Vec<Target> {
        let enabled = config.services.iter().filter(|service| service.enabled);
        enabled.flat_map(|s| s.real_servers.iter().map(|r| Target::of(s, r))).collect()
    }

    /// The target that a real server of a service is.
    pub fn of(service: &Service, real: &RealServer) -> Target {
        // `ports: "*"` has no first port worth checking.
        let whole = |ports: &RangeInclusive<u16>| *ports.start() <= 1 && *ports.end() == u16::MAX;
        let first = service.ports.first().filter(|ports| !whole(ports));
        let vip_port = first.map_or(0, |ports| *ports.start());
        let rpt = real.health_check.port.or(real.port);
        Target {
            service: service.label.clone(),
            real: real.label.clone(),
            rip: real.address,
            port: rpt.unwrap_or(vip_port),
            vip: service.address,
            vip_port,
            rpt: rpt.unwrap_or(0),
            dr: service.forwarding_method == ForwardingMethod::Dr,
            check: real.health_check.clone(),
        }
    }

    /// Whether the check's packets carry the VIP.
    pub fn through_vip(&self) -> bool {
        self.dr && !self.check.via_rip
    }

    /// Equal for targets that one check serves: same type, parameters, timing, address and port.
    /// The VIP counts only where the exchange depends on it, and the labels only for scripts,
    /// which are told them.
    pub fn key(&self) -> String {
        let HealthCheck { name: _, kind, interval, timeout, rise, fall, port: _, via_rip: _ } =
            &*self.check;
        let external = matches!(kind, CheckKind::External { .. });
        let by_host = matches!(kind, CheckKind::Http { host: None, .. });
        let vip = (external || by_host || self.through_vip()).then_some(self.vip);
        let labels = external.then_some((&self.service, &self.real, self.vip_port, self.rpt));
        let port = if matches!(kind, CheckKind::Ping { .. }) { 0 } else { self.port };
        let through = self.through_vip();
        let (rip, timing) = (self.rip, (interval, timeout, rise, fall));
        format!("{kind:?} {timing:?} {rip} {port} {through} {vip:?} {labels:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{OnDown, Protocol, Scheduler, ServiceMode};
    use std::time::Duration;

    fn real(port: Option<u16>, check_port: Option<u16>) -> RealServer {
        let second = Duration::from_secs(1);
        let check = HealthCheck {
            name: None,
            kind: CheckKind::Connect,
            interval: second,
            timeout: second,
            rise: 2,
            fall: 3,
            port: check_port,
            via_rip: false,
        };
        RealServer {
            label: "PACS1".into(),
            address: "10.12.1.110".parse().unwrap(),
            port,
            weight: 100,
            minimum_connections: 0,
            maximum_connections: 0,
            backup: false,
            slow_start: Duration::ZERO,
            health_check: Arc::new(check),
        }
    }

    fn service(ports: RangeInclusive<u16>, forwarding_method: ForwardingMethod) -> Service {
        Service {
            label: "Archive".into(),
            address: "10.12.1.100".parse().unwrap(),
            ports: vec![ports],
            ports_text: String::new(),
            protocol: Protocol::Tcp,
            forwarding_method,
            scheduler: Scheduler::Wlc,
            mode: ServiceMode::LoadBalanced,
            persistence: None,
            source_address: None,
            idle_timeout: Duration::from_secs(7440),
            udp_idle_timeout: Duration::from_secs(300),
            fallback_server: None,
            on_down: OnDown { reset_established: true, keep_persistence: false },
            drain_keep_persistent: false,
            manage_address: true,
            enabled: true,
            real_servers: Vec::new(),
        }
    }

    #[test]
    fn the_checked_port_is_the_checks_then_the_real_servers_then_the_services_first() {
        let nat = service(104..=110, ForwardingMethod::Nat);
        let ports = |real: &RealServer| {
            let target = Target::of(&nat, real);
            (target.port, target.rpt, target.vip_port)
        };
        assert_eq!(ports(&real(None, None)), (104, 0, 104), "blank for a script");
        assert_eq!(ports(&real(Some(11112), None)), (11112, 11112, 104));
        assert_eq!(ports(&real(Some(11112), Some(4242))), (4242, 4242, 104));
        for every in [0..=65535, 1..=65535] {
            let target = Target::of(&service(every, ForwardingMethod::Nat), &real(None, None));
            assert_eq!((target.port, target.vip_port), (0, 0), "a port has to be given");
        }
    }

    #[test]
    fn a_check_goes_through_the_vip_in_dr_unless_it_says_otherwise() {
        let of = |method, via_rip| {
            let mut real = real(None, None);
            real.health_check = Arc::new(HealthCheck { via_rip, ..(*real.health_check).clone() });
            Target::of(&service(104..=104, method), &real).through_vip()
        };
        assert!(of(ForwardingMethod::Dr, false));
        assert!(!of(ForwardingMethod::Dr, true));
        assert!(!of(ForwardingMethod::Nat, false));
        assert!(!of(ForwardingMethod::Snat, false));
    }
}
