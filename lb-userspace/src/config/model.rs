//! A configuration that has been validated. Nothing here can be wrong any more: code that takes
//! these types does not check again.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the XDP program attaches; at least one, names distinct.
    pub interfaces: Vec<Interface>,
    /// Process-wide settings.
    pub global: Global,
    /// Virtual services in file order, those with `enabled: false` included.
    pub services: Vec<Service>,
    /// Source addresses for real servers' own connections.
    pub outbound_snat: Vec<OutboundSnat>,
    /// Hexadecimal SHA-256 of the file's bytes, the `config_hash` of `status`.
    pub hash: String,
}

/// An entry of `interfaces`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name of the network device.
    pub name: String,
    /// How to attach.
    pub xdp_mode: XdpMode,
}

/// `xdp_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native where the driver can, generic otherwise.
    #[default]
    Auto,
    /// In the driver, or fail.
    Native,
    /// In the stack, after an skb was made.
    Generic,
}

/// `global`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Global {
    /// Control socket.
    pub socket: PathBuf,
    /// Group that may use the socket (mode 0660); none: root's.
    pub socket_group: Option<String>,
    /// Where admin state is kept.
    pub state_dir: PathBuf,
    /// Where programs, links and maps are pinned.
    pub pin_dir: PathBuf,
    /// Size of the established-connection table, per address family.
    pub maximum_flows: u32,
    /// Size of the half-open table, per address family.
    pub maximum_half_open: u32,
    /// SNAT source ports.
    pub snat_ports: RangeInclusive<u16>,
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Unique, 1 to 120 bytes.
    pub label: String,
    /// The VIP.
    pub address: IpAddr,
    /// Ports, sorted, disjoint, not adjacent; never empty.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Ports as the operator wrote them.
    pub ports_text: String,
    /// `protocol`.
    pub protocol: Protocol,
    /// `forwarding_method`.
    pub forwarding_method: ForwardingMethod,
    /// `scheduler`.
    pub scheduler: Scheduler,
    /// `mode`.
    pub mode: ServiceMode,
    /// Source-address persistence.
    pub persistence: Option<Persistence>,
    /// SNAT source; none: the egress interface's address.
    pub source_address: Option<IpAddr>,
    /// Idle time of established TCP connections.
    pub idle_timeout: Duration,
    /// Idle time of UDP flows (300 s unless `idle_timeout` was given for this service).
    pub udp_idle_timeout: Duration,
    /// Takes connections when no real server can.
    pub fallback_server: Option<FallbackServer>,
    /// `on_down`.
    pub on_down: OnDown,
    /// Whether a draining server keeps taking the new connections of persistent clients.
    pub drain_keep_persistent: bool,
    /// Put the VIP on the interface and announce it.
    pub manage_address: bool,
    /// A disabled service is kept in the file only.
    pub enabled: bool,
    /// In file order; labels distinct within the service.
    pub real_servers: Vec<RealServer>,
}

/// `protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// Both, on the same ports.
    TcpUdp,
}

/// `forwarding_method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardingMethod {
    /// Direct routing.
    Dr,
    /// Destination translation.
    Nat,
    /// Source and destination translation.
    Snat,
}

/// `scheduler`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduler {
    /// Weighted least connection.
    #[default]
    Wlc,
    /// Least connection.
    Lc,
    /// Weighted round robin.
    Wrr,
    /// Round robin.
    Rr,
    /// Source hash.
    Sh,
    /// Maglev (consistent) hash of the source.
    Maglev,
}

/// `mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceMode {
    /// All servers share the load.
    #[default]
    LoadBalanced,
    /// The first healthy server takes it all.
    Failover,
}

/// `persistence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Since the client's last new connection.
    pub timeout: Duration,
    /// Bits of the client's address that count.
    pub prefix_length: u8,
}

/// `fallback_server`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FallbackServer {
    /// Its address.
    pub address: IpAddr,
    /// Its port; none: the one that the client asked for.
    pub port: Option<u16>,
}

/// `on_down`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDown {
    /// Reset established connections (default) or keep forwarding them.
    pub reset_established: bool,
    /// Keep persistence entries for when the server comes back (default: drop).
    pub keep_persistence: bool,
}

/// A real server of a virtual service.
#[derive(Clone, Debug, PartialEq)]
pub struct RealServer {
    /// Unique within the service, 1 to 120 bytes.
    pub label: String,
    /// The RIP.
    pub address: IpAddr,
    /// Port translation; none: the port that the client asked for.
    pub port: Option<u16>,
    /// 0: takes no new connections.
    pub weight: u16,
    /// Back in when connections have fallen to this.
    pub minimum_connections: u32,
    /// Out at this many connections; 0: no limit.
    pub maximum_connections: u32,
    /// Comes after all others in failover mode; used in load-balanced mode only when no other can.
    pub backup: bool,
    /// Time over which the weight grows from nothing after the server comes up.
    pub slow_start: Duration,
    /// Its check: its own, the service's, or the default. Shared when the file names it.
    pub health_check: Arc<HealthCheck>,
}

/// `outbound_snat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundSnat {
    /// Real servers' addresses.
    pub sources: Vec<IpAddr>,
    /// `protocol`.
    pub protocol: Protocol,
    /// Destination ports, as in [`Service::ports`].
    pub ports: Vec<RangeInclusive<u16>>,
    /// The address that the connections leave with.
    pub to_source: IpAddr,
}

/// How one server is checked: when, and by what exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// Its name in `health_checks`, if it has one.
    pub name: Option<String>,
    /// The exchange.
    pub kind: CheckKind,
    /// From the start of one check to the start of the next.
    pub interval: Duration,
    /// For the whole exchange.
    pub timeout: Duration,
    /// Passes that bring a server up.
    pub rise: u32,
    /// Failures that take it down.
    pub fall: u32,
    /// Port to check; none: the real server's, or the service's first port.
    pub port: Option<u16>,
    /// Check the RIP itself also in DR, not through the VIP.
    pub via_rip: bool,
}

/// `type` and its fields.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckKind {
    /// TCP connect.
    Connect,
    /// DICOM C-ECHO.
    DicomEcho {
        /// 1 to 16 characters.
        calling_ae: String,
        /// 1 to 16 characters.
        called_ae: String,
        /// TLS, if asked for.
        tls: Option<Tls>,
        /// What a transient rejection means.
        on_busy: OnBusy,
        /// Accept an association alone, without an echo.
        accept_association: bool,
    },
    /// HL7 over MLLP.
    Mllp {
        /// Send a message instead of holding the connection only.
        message: Option<MllpMessage>,
        /// TLS, if asked for.
        tls: Option<Tls>,
    },
    /// HTTP or HTTPS.
    Http {
        /// TLS, for `https`.
        tls: Option<Tls>,
        /// Request target.
        path: String,
        /// GET, HEAD, …
        method: String,
        /// Host header and SNI; none: the VIP.
        host: Option<String>,
        /// Accepted status codes.
        status: Vec<RangeInclusive<u16>>,
        /// Regular expression that the first 64 KiB of the body must match; known to compile.
        body: Option<String>,
    },
    /// LDAP or LDAPS simple bind.
    Ldap {
        /// TLS, for `ldaps`.
        tls: Option<Tls>,
        /// Anonymous when empty.
        bind_dn: String,
        /// File that holds the password.
        password_file: Option<PathBuf>,
        /// Entry that a base search must find.
        base: Option<String>,
    },
    /// Microsoft SQL Server.
    Mssql {
        /// A TDS pre-login exchange, not a mere connect.
        prelogin: bool,
    },
    /// ICMP echo.
    Ping {
        /// Requests in one check; one reply passes.
        count: u32,
    },
    /// A script.
    External {
        /// Program and arguments before `VIP VPT RIP RPT`.
        command: Vec<String>,
        /// Unprivileged user it runs as.
        user: String,
    },
    /// Always up.
    None,
}

/// TLS of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Verify the server's certificate (default).
    pub verify: bool,
    /// CA certificates (PEM); none: the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain and key (PEM).
    pub client: Option<(PathBuf, PathBuf)>,
    /// Name to verify and to send as SNI; none: the address.
    pub server_name: Option<String>,
}

/// `on_busy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBusy {
    /// A busy server is healthy.
    #[default]
    Up,
    /// It takes no new connections.
    Drain,
    /// It has failed.
    Down,
}

/// `mode: message` of an MLLP check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MllpMessage {
    /// The operator's message; none: the built-in NMQ^N01.
    pub text: Option<String>,
    /// `expect: AA`.
    pub expect_aa: bool,
}
