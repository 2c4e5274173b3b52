//! Who forwards, and how it is set up.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use super::rig::list;
use crate::lab::{Lab, Medlb, Method, Netns};

/// The virtual service's address.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 100);
/// Its port.
pub(super) const PORT: u16 = 104;
/// What an error of `nft` may mean.
const NFT: &str = "nftables is needed: `apt-get install nftables`";
/// How many real servers: enough that no source address runs out of ports.
pub(super) const REALS: u8 = 8;

/// Real server `number`; they are all the same cable's end.
pub(super) fn real(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 2, 21 + number)
}

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// Nobody: counted and dropped at the first interface.
    Drop,
    /// A program that writes two MAC addresses and redirects.
    Bare,
    /// This program.
    Medlb(Method),
    /// The kernel: destination translation, spread by hash.
    Dnat,
    /// And the source.
    Masquerade,
    /// The kernel, without translation, to the first real server.
    Routing,
}

impl Contender {
    /// All of them.
    pub(super) const ALL: [Self; 8] = [
        Self::Drop,
        Self::Bare,
        Self::Medlb(Method::Dr),
        Self::Medlb(Method::Nat),
        Self::Medlb(Method::Snat),
        Self::Dnat,
        Self::Masquerade,
        Self::Routing,
    ];

    /// For tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Drop => "XDP_DROP",
            Self::Bare => "bare XDP redirect",
            Self::Medlb(Method::Dr) => "medlb, DR",
            Self::Medlb(Method::Nat) => "medlb, NAT",
            Self::Medlb(Method::Snat) => "medlb, SNAT",
            Self::Dnat => "nftables DNAT",
            Self::Masquerade => "nftables DNAT + masquerade",
            Self::Routing => "routing",
        }
    }

    /// What part of XDP_DROP's rate it should reach.
    pub(super) fn aim(self) -> Option<f64> {
        match self {
            Self::Medlb(Method::Dr) => Some(0.5),
            Self::Medlb(_) => Some(0.4),
            _ => None,
        }
    }

    /// Starts it in `inside`, whose `eth0` is towards the clients.
    pub(super) fn start(self, lab: &Lab, inside: &Netns, flows: u32) -> Result<Option<Medlb>> {
        match self {
            Self::Drop | Self::Bare => return Ok(None),
            Self::Medlb(method) => {
                let config = config(lab, method, flows);
                let medlb = Medlb::start_in(inside, lab.directory(), &config)?;
                return Ok(Some(medlb));
            }
            Self::Dnat => rules(inside, false)?,
            Self::Masquerade => rules(inside, true)?,
            Self::Routing => (),
        }
        // What a user has: no program, GRO on. Without either, redirected frames do not arrive.
        inside.run("ethtool", &["-K", "eth0", "gro", "on"])?;
        inside.sysctl("ipv4/ip_forward", 1)?;
        Ok(None)
    }
}

/// nftables' translation. Connections may be joined in the middle, which saves the handshakes, and
/// checksums are not verified, which a network card would have done.
fn rules(inside: &Netns, masquerade: bool) -> Result<()> {
    let mut servers = String::new();
    for (number, real) in list(REALS).enumerate() {
        let _ = write!(servers, "{number} : {real}, ");
    }
    let mut text = format!(
        "table ip balance {{\n\
         chain before {{ type nat hook prerouting priority dstnat;\n\
         ip daddr {VIP} tcp dport {PORT} dnat to \
         jhash ip saddr . tcp sport mod {REALS} map {{ {servers} }}\n}}\n"
    );
    if masquerade {
        text +=
            "chain after { type nat hook postrouting priority srcnat; oifname eth1 masquerade\n}\n";
    }
    text += "}\n";
    inside.run("sh", &["-c", &format!("echo '{text}' | nft -f -")]).context(NFT)?;
    inside.sysctl("netfilter/nf_conntrack_tcp_be_liberal", 1)?;
    inside.sysctl("netfilter/nf_conntrack_checksum", 0)
}

fn config(lab: &Lab, method: Method, flows: u32) -> String {
    let directory = lab.directory().display();
    let pins = lab.pins().display().to_string();
    let mut text = format!(
        "interfaces: [eth0, eth1]\n\
         global:\n  \
           socket: {directory}/medlb.sock\n  \
           state_dir: {directory}/state\n  \
           pin_dir: {pins}\n  \
           maximum_flows: {flows}\n  \
           snat_ports: 1024-32767\n\
         virtual_services:\n  \
           - label: WIRE\n    \
             address: {VIP}\n    \
             ports: {PORT}\n    \
             forwarding_method: {}\n    \
             health_check: none\n",
        method.name()
    );
    if method == Method::Snat {
        text += "    source_address: 10.77.2.2\n";
    }
    text += "    real_servers:\n";
    for (number, real) in list(REALS).enumerate() {
        let _ = writeln!(text, "      - {{label: W{number}, address: {real}}}");
    }
    text
}
