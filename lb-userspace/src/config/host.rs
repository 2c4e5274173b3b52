//! What a valid configuration needs of the machine it runs on. Apart from validation, so that a
//! file can be checked on a laptop: `check` gives these problems as warnings (only those of
//! [`check_sources`] as errors, where all interfaces are there to judge by), and `run` refuses to
//! start with those of [`check_host`].

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::SockaddrStorage;
use nix::unistd::{Group, User};

use super::model::{CheckKind, Config, ForwardingMethod, HealthCheck, Tls};
use super::problem::Problem;

/// What forwarding needs: everything below but [`check_files`].
pub fn check_host(config: &Config) -> Vec<Problem> {
    let mut problems = check_interfaces(config);
    if let Some(group) = &config.global.socket_group
        && !matches!(Group::from_name(group), Ok(Some(_)))
    {
        let message = format!("there is no group `{group}` here");
        problems.push(Problem::new("global.socket_group", message));
    }
    problems.extend(check_sources(config));
    snat_ports(config, &mut problems);
    problems
}

/// The network devices that are not there.
pub fn check_interfaces(config: &Config) -> Vec<Problem> {
    let missing = |name: &str| if_nametoindex(name).is_err();
    let interfaces = config.interfaces.iter().enumerate();
    interfaces
        .filter(|(_, interface)| missing(&interface.name))
        .map(|(index, interface)| {
            let message = format!("there is no network device `{}` here", interface.name);
            Problem::new(format!("interfaces[{index}]"), message)
        })
        .collect()
}

/// What health checks need: their files, scripts and users. A server whose check lacks one is down,
/// and nothing worse.
pub fn check_files(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen = HashSet::new();
    for (s, service) in config.services.iter().enumerate() {
        for (r, server) in service.real_servers.iter().enumerate() {
            let check = &server.health_check;
            if seen.insert(Arc::as_ptr(check)) {
                let path = match &check.name {
                    Some(name) => format!("health_checks.{name}"),
                    None => format!("virtual_services[{s}].real_servers[{r}].health_check"),
                };
                check_needs(check, &path, &mut problems);
            }
        }
    }
    problems
}

fn check_needs(check: &HealthCheck, path: &str, problems: &mut Vec<Problem>) {
    let mut file = |field: &str, file: &Path| {
        if let Err(error) = std::fs::File::open(file) {
            let message = format!("cannot read {}: {error}", file.display());
            problems.push(Problem::new(format!("{path}.{field}"), message));
        }
    };
    let mut tls_files = |tls: &Option<Tls>| {
        let Some(tls) = tls else { return };
        if let Some(ca) = &tls.ca_file {
            file("tls.ca_file", ca);
        }
        if let Some((cert, key)) = &tls.client {
            file("tls.cert_file", cert);
            file("tls.key_file", key);
        }
    };
    match &check.kind {
        CheckKind::DicomEcho { tls, .. }
        | CheckKind::Mllp { tls, .. }
        | CheckKind::Http { tls, .. } => tls_files(tls),
        CheckKind::Ldap { tls, password_file, .. } => {
            tls_files(tls);
            if let Some(password) = password_file {
                file("password_file", password);
                let mode = std::fs::metadata(password).map_or(0, |m| m.permissions().mode());
                if mode & 0o004 != 0 {
                    let message = format!(
                        "{0} can be read by everyone on this machine; chmod 0600 {0}",
                        password.display()
                    );
                    problems.push(Problem::new(format!("{path}.password_file"), message));
                }
            }
        }
        CheckKind::External { command, user } => {
            let program = command.first().map(String::as_str).unwrap_or_default();
            let message = match std::fs::metadata(program) {
                Err(error) => Some(format!("cannot run {program}: {error}")),
                Ok(meta) if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 => {
                    Some(format!("{program} is not an executable file; chmod +x {program}"))
                }
                Ok(_) => None,
            };
            if let Some(message) = message {
                problems.push(Problem::new(format!("{path}.command"), message));
            }
            if !matches!(User::from_name(user), Ok(Some(_))) {
                let message = format!("there is no user `{user}` here");
                problems.push(Problem::new(format!("{path}.user"), message));
            }
        }
        CheckKind::Connect | CheckKind::Mssql { .. } | CheckKind::Ping { .. } | CheckKind::None => {
        }
    }
}

/// The interface that a VLAN is on, from the text of /proc/net/vlan/config (net/8021q/vlanproc.c):
/// `eth0.85        | 85  | eth0`.
fn under_vlan<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    table.lines().find_map(|line| {
        let mut columns = line.split('|').map(str::trim);
        (columns.next()? == name).then(|| columns.nth(1)).flatten()
    })
}

/// Source addresses that no attached interface can own. Answers to an address come here if it is in
/// one of an interface's networks, or is a VIP that medlb puts there. Each address is reported once.
pub fn check_sources(config: &Config) -> Vec<Problem> {
    let wanted = wanted_sources(config);
    if wanted.is_empty() {
        return Vec::new();
    }
    let Ok(addresses) = getifaddrs() else { return Vec::new() };
    let vlans = std::fs::read_to_string("/proc/net/vlan/config").unwrap_or_default();
    let place = |name: &str| {
        let under = under_vlan(&vlans, name);
        config.interfaces.iter().any(|i| i.name == name || Some(i.name.as_str()) == under)
    };
    let attached: Vec<(IpAddr, u8)> = addresses
        .filter(|address| place(&address.interface_name))
        .filter_map(|address| network(&address))
        .collect();
    let names: Vec<&str> = config.interfaces.iter().map(|i| i.name.as_str()).collect();
    let managed = |address: IpAddr| {
        let mut services = config.services.iter().filter(|s| s.enabled && s.manage_address);
        services.any(|service| service.address == address)
    };
    let mut problems = Vec::new();
    let mut judged = HashSet::new();
    for (path, address) in &wanted {
        let owned = |(own, length): &(IpAddr, u8)| contains(*own, *length, *address);
        if !judged.insert(*address) || managed(*address) || attached.iter().any(owned) {
            continue;
        }
        let places = wanted.iter().filter(|(_, other)| other == address).count();
        let more = match places {
            1 => String::new(),
            places => format!(" (used in {places} places)"),
        };
        let message = format!(
            "{address}{more} is in no network of {}: answers to it would not come here; use an \
             address of an attached interface's network, or add it to the interface",
            names.join(", ")
        );
        problems.push(Problem::new(path, message));
    }
    problems
}

/// The addresses that connections are translated to come from, with their paths.
fn wanted_sources(config: &Config) -> Vec<(String, IpAddr)> {
    let services = config.services.iter().enumerate().filter(|(_, service)| service.enabled);
    let of_services = services.filter_map(|(index, service)| {
        let path = format!("virtual_services[{index}].source_address");
        service.source_address.map(|address| (path, address))
    });
    let of_rules = config.outbound_snat.iter().enumerate();
    let of_rules =
        of_rules.map(|(index, rule)| (format!("outbound_snat[{index}].to_source"), rule.to_source));
    of_services.chain(of_rules).collect()
}

/// An interface's address and prefix length.
fn network(address: &InterfaceAddress) -> Option<(IpAddr, u8)> {
    let (own, mask) = (ip(address.address.as_ref()?)?, ip(address.netmask.as_ref()?)?);
    let length = match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    };
    Some((own, u8::try_from(length).ok()?))
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

/// Whether `address` is in the network of `own` with a prefix of `length` bits.
fn contains(own: IpAddr, length: u8, address: IpAddr) -> bool {
    let (own, address, bits) = match (own, address) {
        (IpAddr::V4(own), IpAddr::V4(address)) => {
            (u128::from(own.to_bits()), u128::from(address.to_bits()), 32)
        }
        (IpAddr::V6(own), IpAddr::V6(address)) => (own.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    let host_bits = bits - u32::from(length).min(bits);
    own.checked_shr(host_bits) == address.checked_shr(host_bits)
}

fn snat_ports(config: &Config, problems: &mut Vec<Problem>) {
    let translates = config
        .services
        .iter()
        .any(|service| service.enabled && service.forwarding_method == ForwardingMethod::Snat);
    if !translates && config.outbound_snat.is_empty() {
        return;
    }
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
    let Ok(local) = read("ip_local_port_range") else { return };
    let reserved = read("ip_local_reserved_ports").unwrap_or_default();
    if let Some(message) = overlap(&config.global.snat_ports, &local, &reserved) {
        problems.push(Problem::new("global.snat_ports", message));
    }
}

/// Whether the host itself may take ports of `ours` for its own connections; `local` and `reserved`
/// are the kernel's ip_local_port_range and ip_local_reserved_ports.
fn overlap(ours: &RangeInclusive<u16>, local: &str, reserved: &str) -> Option<String> {
    let mut bounds = local.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(first)), Some(Ok(last))) = (bounds.next(), bounds.next()) else { return None };
    let reserved: Vec<RangeInclusive<u16>> = reserved
        .trim()
        .split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .collect();
    let free = |port: &u16| !reserved.iter().any(|range| range.contains(port));
    let taken = (first.max(*ours.start())..=last.min(*ours.end())).find(free)?;
    let (start, end) = (ours.start(), ours.end());
    Some(format!(
        "port {taken} is also in net.ipv4.ip_local_port_range ({first}-{last}), which the host's \
         own connections use; choose other ports, or set ip_local_reserved_ports={start}-{end}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_is_on_the_interface_that_the_kernel_says() {
        let table = "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                     eth0.85        | 85  | eth0\nmgmt           | 9  | eth1\n";
        assert_eq!(under_vlan(table, "eth0.85"), Some("eth0"));
        assert_eq!(under_vlan(table, "mgmt"), Some("eth1"));
        assert_eq!(under_vlan(table, "eth0"), None);
        assert_eq!(under_vlan("", "eth0.85"), None);
    }

    #[test]
    fn an_address_is_in_a_network_of_its_family_only() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(contains(ip("10.0.52.1"), 24, ip("10.0.52.200")));
        assert!(!contains(ip("10.0.52.1"), 24, ip("10.0.53.200")));
        assert!(contains(ip("10.0.52.1"), 0, ip("1.2.3.4")));
        assert!(!contains(ip("10.0.52.1"), 32, ip("10.0.52.2")));
        assert!(contains(ip("2001:db8::1"), 64, ip("2001:db8::ffff")));
        assert!(!contains(ip("2001:db8::1"), 64, ip("2001:db8:0:1::1")));
        assert!(!contains(ip("10.0.52.1"), 0, ip("2001:db8::1")));
    }

    #[test]
    fn snat_ports_clash_with_the_hosts_own_unless_reserved() {
        assert_eq!(overlap(&(61000..=65535), "32768\t60999\n", "\n"), None);
        let message = overlap(&(60000..=65535), "32768\t60999\n", "").unwrap();
        assert!(message.starts_with("port 60000 is also in"), "{message}");
        assert_eq!(overlap(&(60000..=65535), "32768\t60999\n", "60000-65535\n"), None);
        assert!(overlap(&(60000..=65535), "32768\t60999\n", "60001-65535\n").is_some());
        assert_eq!(overlap(&(61000..=65535), "garbage", ""), None);
    }
}
