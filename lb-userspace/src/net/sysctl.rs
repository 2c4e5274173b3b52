//! Kernel settings that get in a load balancer's way. Read, never changed.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path as FilePath;

/// A setting that deserves a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Its name, as sysctl(8) writes it.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What it does here and what to set.
    pub words: String,
}

/// Reads the settings that matter on these interfaces, in the network namespace of the calling
/// thread. Settings that are as they should be, or that the kernel does not have, give no advice.
pub fn sysctl_advice(interfaces: &[String]) -> Vec<Advice> {
    advise(FilePath::new("/proc/sys"), interfaces)
}

/// Whether the kernel's own outgoing ports overlap those that SNAT uses.
pub fn sysctl_advice_ports(snat_ports: &RangeInclusive<u16>) -> Option<Advice> {
    advise_ports(FilePath::new("/proc/sys"), snat_ports)
}

/// Whether the kernel tells real servers of a shorter way past this interface: where medlb is their
/// gateway, and clients are behind the same interface.
pub fn sysctl_advice_redirects(interface: &str) -> Option<Advice> {
    advise_redirects(FilePath::new("/proc/sys"), interface)
}

fn advise(root: &FilePath, interfaces: &[String]) -> Vec<Advice> {
    let mut advice = Vec::new();
    let mut note = |key: String, value: String, words: String| {
        advice.push(Advice { key, value, words });
    };
    let everywhere = number(root, "net/ipv4/conf/all/rp_filter").unwrap_or(0);
    for interface in interfaces {
        let here = number(root, &format!("net/ipv4/conf/{interface}/rp_filter")).unwrap_or(0);
        // The kernel takes the larger of the two.
        if everywhere.max(here) == 1 {
            let scope = if here == 1 { interface.as_str() } else { "all" };
            note(
                format!("net.ipv4.conf.{scope}.rp_filter"),
                "1".into(),
                format!(
                    "packets that arrive at {interface} and whose way back is another interface \
                     are dropped by the kernel; set it to 0, or to 2 (loose)"
                ),
            );
        }
        for (family, key) in [("IPv4", "net/ipv4/conf"), ("IPv6", "net/ipv6/conf")] {
            if number(root, &format!("{key}/{interface}/forwarding")) == Some(0) {
                let (name, fix) = if family == "IPv4" {
                    (format!("net.ipv4.conf.{interface}.forwarding"), "net.ipv4.ip_forward")
                } else {
                    (
                        format!("net.ipv6.conf.{interface}.forwarding"),
                        "net.ipv6.conf.all.forwarding",
                    )
                };
                note(
                    name,
                    "0".into(),
                    format!(
                        "the kernel does not route {family} packets from {interface}: real servers \
                         that use this host as their gateway (NAT) reach nothing but clients, and \
                         replies whose way back is not known are dropped; with NAT or SNAT set \
                         {fix} to 1"
                    ),
                );
            }
        }
    }
    for (family, key) in [("IPv4", "bridge-nf-call-iptables"), ("IPv6", "bridge-nf-call-ip6tables")]
    {
        if number(root, &format!("net/bridge/{key}")) == Some(1) {
            note(
                format!("net.bridge.{key}"),
                "1".into(),
                format!(
                    "bridged {family} frames pass the host's packet filter, which may drop \
                     connections that it has seen only half of (DR); set it to 0 unless something \
                     needs it"
                ),
            );
        }
    }
    advice
}

fn advise_ports(root: &FilePath, snat_ports: &RangeInclusive<u16>) -> Option<Advice> {
    let text = fs::read_to_string(root.join("net/ipv4/ip_local_port_range")).ok()?;
    let mut words = text.split_whitespace().map(str::parse::<u16>);
    let (low, high) = (words.next()?.ok()?, words.next()?.ok()?);
    if high < *snat_ports.start() || low > *snat_ports.end() {
        return None;
    }
    let (start, end) = (snat_ports.start(), snat_ports.end());
    let fix = if *start > low.saturating_add(1000) {
        format!("set it to \"{low} {}\", or choose other snat_ports", start - 1)
    } else {
        "choose other snat_ports, or another range here".into()
    };
    Some(Advice {
        key: "net.ipv4.ip_local_port_range".into(),
        value: format!("{low} {high}"),
        words: format!(
            "this host's own connections may use ports of snat_ports ({start}-{end}), and their \
             replies would then be taken for a client's; {fix}"
        ),
    })
}

fn advise_redirects(root: &FilePath, interface: &str) -> Option<Advice> {
    let at = |scope: &str, key: &str| number(root, &format!("net/ipv4/conf/{scope}/{key}"));
    // One of the two is enough (IN_DEV_TX_REDIRECTS), and only who routes sends redirects.
    let scope = ["all", interface].into_iter().find(|s| at(s, "send_redirects") == Some(1))?;
    at(interface, "forwarding").filter(|&on| on == 1)?;
    Some(Advice {
        key: format!("net.ipv4.conf.{scope}.send_redirects"),
        value: "1".into(),
        words: format!(
            "when a real server opens a connection that the kernel routes back out of {interface}, \
             the kernel tells it of the direct way to that peer, and what it then sends to the \
             same peer as a client misses medlb; set it to 0 for \"all\" and for {interface} \
             (IPv6 has no such setting: there set net.ipv6.conf.all.accept_redirects to 0 on the \
             real servers)"
        ),
    })
}

fn number(root: &FilePath, key: &str) -> Option<u32> {
    fs::read_to_string(root.join(key)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("medlb-{name}-{}", std::process::id()));
        for (key, value) in files {
            let file = root.join(key);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, value).unwrap();
        }
        root
    }

    #[test]
    fn a_strict_filter_and_a_host_that_does_not_route_are_named() {
        let root = tree(
            "sysctl",
            &[
                ("net/ipv4/conf/all/rp_filter", "1\n"),
                ("net/ipv4/conf/eth0/rp_filter", "0\n"),
                ("net/ipv4/conf/eth1/rp_filter", "2\n"),
                ("net/ipv4/conf/eth0/forwarding", "0\n"),
                ("net/ipv4/conf/eth1/forwarding", "1\n"),
                ("net/bridge/bridge-nf-call-iptables", "1\n"),
            ],
        );
        let keys: Vec<String> = advise(&root, &["eth0".into(), "eth1".into()])
            .into_iter()
            .map(|advice| advice.key)
            .collect();
        fs::remove_dir_all(&root).unwrap();
        let wanted = [
            "net.ipv4.conf.all.rp_filter",
            "net.ipv4.conf.eth0.forwarding",
            "net.bridge.bridge-nf-call-iptables",
        ];
        assert_eq!(keys, wanted);
    }

    #[test]
    fn redirects_are_named_where_the_kernel_routes_and_either_setting_asks_for_them() {
        for (all, own, forwarding, key) in [
            ("1\n", "0\n", "1\n", Some("net.ipv4.conf.all.send_redirects")),
            ("0\n", "1\n", "1\n", Some("net.ipv4.conf.eth0.send_redirects")),
            ("0\n", "0\n", "1\n", None),
            ("1\n", "1\n", "0\n", None),
        ] {
            let root = tree(
                "redirects",
                &[
                    ("net/ipv4/conf/all/send_redirects", all),
                    ("net/ipv4/conf/eth0/send_redirects", own),
                    ("net/ipv4/conf/eth0/forwarding", forwarding),
                ],
            );
            let found = advise_redirects(&root, "eth0").map(|advice| advice.key);
            fs::remove_dir_all(&root).unwrap();
            assert_eq!(found.as_deref(), key, "{all:?} {own:?} {forwarding:?}");
        }
    }

    #[test]
    fn ports_that_overlap_are_named_with_a_range_that_would_do() {
        let root = tree("ports", &[("net/ipv4/ip_local_port_range", "32768\t60999\n")]);
        let apart = advise_ports(&root, &(61000..=65535));
        let overlap = advise_ports(&root, &(50000..=65535)).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(apart, None);
        assert!(overlap.words.contains("\"32768 49999\""), "{}", overlap.words);
    }
}
