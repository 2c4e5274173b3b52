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
