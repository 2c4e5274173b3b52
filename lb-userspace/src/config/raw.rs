//! The shape of the file. Nothing is judged here: every field may be absent or wrong, and unknown
//! keys are kept, so that the validation can report all of it. The JSON Schema is made from these
//! types; their comments are its descriptions.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_yaml::Value;

use super::field::{Field, FromYaml, List, Unknown, mappings, shown};
use super::model::{ForwardingMethod, Protocol, Scheduler, ServiceMode, XdpMode};
use super::raw_check::{CheckRef, NamedChecks};
use super::scalar::{OneOrMany, PortRange, Ports, Time};
use super::words::{Established, Stored};

mappings! {
    RawConfig: "a mapping with interfaces, virtual_services, …",
    RawInterface: "a device name or {name: eth0, xdp_mode: auto}",
    RawGlobal: "a mapping",
    RawDefaults: "a mapping",
    RawService: "a mapping with label, address, ports, …",
    RawPersistence: "none or a mapping such as {timeout: 1h}",
    RawFallback: "a mapping such as {address: 10.0.0.9, port: 80}",
    RawOnDown: "a mapping such as {established: reset, persistence: drop}",
    RawDrain: "a mapping such as {keep_persistent: true}",
    RawServer: "a mapping with label, address, …",
    RawOutboundSnat: "a mapping with sources, ports and to_source",
}

/// The configuration of medlb.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(title = "medlb", deny_unknown_fields, extend("required" = ["interfaces"]))]
pub struct RawConfig {
    /// Where the XDP program attaches.
    pub interfaces: Field<List<InterfaceEntry>>,
    /// Process-wide settings.
    pub global: Field<RawGlobal>,
    /// Health checks with a name, for use by several services.
    pub health_checks: Field<NamedChecks>,
    /// What clients connect to.
    pub virtual_services: Field<List<RawService>>,
    /// Source addresses for connections that real servers open themselves.
    pub outbound_snat: Field<List<RawOutboundSnat>>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// A network device.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum InterfaceEntry {
    /// Its name.
    Name(String),
    /// Its name and how to attach.
    Full(RawInterface),
}

impl FromYaml for InterfaceEntry {
    fn from_yaml(value: Value) -> Result<Self, String> {
        match value {
            Value::String(name) => Ok(Self::Name(name)),
            value => RawInterface::from_yaml(value).map(Self::Full),
        }
    }
}

/// A network device and how to attach to it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, extend("required" = ["name"]))]
pub struct RawInterface {
    /// Name of the device, such as eth0.
    pub name: Field<String>,
    /// auto: native where the driver can, generic otherwise. Default: auto.
    pub xdp_mode: Field<XdpMode>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Process-wide settings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct RawGlobal {
    /// Control socket. Default: /run/medlb/medlb.sock.
    pub socket: Field<PathBuf>,
    /// Group that may use the socket. Default: root's.
    pub socket_group: Field<String>,
    /// Where admin state is kept. Default: /var/lib/medlb.
    pub state_dir: Field<PathBuf>,
    /// Where programs, links and maps are pinned. Default: /sys/fs/bpf/medlb.
    pub pin_dir: Field<PathBuf>,
    /// Size of the established-connection table, per address family. Default: 262144.
    #[schemars(range(min = 1024, max = 16777216))]
    pub maximum_flows: Field<u64>,
    /// Size of the half-open table, per address family. Default: 65536.
    #[schemars(range(min = 1024, max = 16777216))]
    pub maximum_half_open: Field<u64>,
    /// Source ports for SNAT, kept apart from net.ipv4.ip_local_port_range. Default: 61000-65535.
    pub snat_ports: Field<PortRange>,
    /// For every health check and service that does not say otherwise.
    pub defaults: Field<RawDefaults>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Defaults of health checks and services.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct RawDefaults {
    /// From the start of one check to the start of the next. Default: 6s.
    pub interval: Field<Time>,
    /// For the whole exchange of a check. Default: 3s.
    pub timeout: Field<Time>,
    /// Passes that bring a server up. Default: 2.
    #[schemars(range(min = 1, max = 1000))]
    pub rise: Field<u64>,
    /// Failures that take a server down. Default: 3.
    #[schemars(range(min = 1, max = 1000))]
    pub fall: Field<u64>,
    /// Idle time after which an established TCP connection is forgotten. Default: 7440s.
    pub idle_timeout: Field<Time>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// What clients connect to.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(
    deny_unknown_fields,
    extend("required" = ["label", "address", "ports", "forwarding_method", "real_servers"])
)]
pub struct RawService {
    /// Its name, unique in the file.
    pub label: Field<String>,
    /// The virtual IP address (VIP).
    pub address: Field<IpAddr>,
    /// The ports.
    pub ports: Field<Ports>,
    /// Default: tcp.
    pub protocol: Field<Protocol>,
    /// dr: direct routing. nat: destination translation. snat: source and destination translation.
    pub forwarding_method: Field<ForwardingMethod>,
    /// How a new connection's server is chosen. Default: wlc.
    pub scheduler: Field<Scheduler>,
    /// failover: the first healthy server takes everything. Default: load-balanced.
    pub mode: Field<ServiceMode>,
    /// Keeps a client on one server, by source address. Default: none.
    pub persistence: Field<NoneOr<RawPersistence>>,
    /// snat only: source of the connections to real servers. Default: the interface's address.
    pub source_address: Field<IpAddr>,
    /// Idle time after which an established connection is forgotten.
    pub idle_timeout: Field<Time>,
    /// A name from health_checks, a check, or none. Default: {type: connect}.
    pub health_check: Field<CheckRef>,
    /// Takes the connections when no real server can.
    pub fallback_server: Field<RawFallback>,
    /// What becomes of a failed server's clients.
    pub on_down: Field<RawOnDown>,
    /// How a draining server is treated.
    pub drain: Field<RawDrain>,
    /// Put the VIP on the interface and announce it. Default: true.
    pub manage_address: Field<bool>,
    /// Default: true.
    pub enabled: Field<bool>,
    /// The servers, in failover order.
    pub real_servers: Field<List<RawServer>>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Persistence by source address.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct RawPersistence {
    /// Since the client's last new connection. Default: 5m.
    pub timeout: Field<Time>,
    /// Bits of the client's address that count. Default: all of them.
    #[schemars(range(min = 1, max = 128))]
    pub prefix_length: Field<u64>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Takes the connections when no real server can.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, extend("required" = ["address"]))]
pub struct RawFallback {
    /// Its address.
    pub address: Field<IpAddr>,
    /// Its port (nat and snat). Default: the one that the client asked for.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Field<u64>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// What becomes of a failed server's clients.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct RawOnDown {
    /// Established connections. Default: reset.
    pub established: Field<Established>,
    /// Persistence entries. Default: drop.
    pub persistence: Field<Stored>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// How a draining server is treated.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct RawDrain {
    /// It keeps taking the new connections of its persistent clients. Default: false.
    pub keep_persistent: Field<bool>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// A server behind a virtual service.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, extend("required" = ["label", "address"]))]
pub struct RawServer {
    /// Its name, unique in the service.
    pub label: Field<String>,
    /// The real server's IP address (RIP).
    pub address: Field<IpAddr>,
    /// nat and snat only. Default: the port that the client asked for.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Field<u64>,
    /// 0: no new connections. Default: 100.
    #[schemars(range(min = 0, max = 65535))]
    pub weight: Field<u64>,
    /// Back in when connections have fallen to this. Default: 0.
    #[schemars(range(min = 0, max = 4294967295_u32))]
    pub minimum_connections: Field<u64>,
    /// Out at this many connections; 0: no limit. Default: 0.
    #[schemars(range(min = 0, max = 4294967295_u32))]
    pub maximum_connections: Field<u64>,
    /// Used only when no other server can be. Default: false.
    pub backup: Field<bool>,
    /// Time over which the weight grows from nothing after the server comes up. Default: 0s.
    pub slow_start: Field<Time>,
    /// Overrides the service's.
    pub health_check: Field<CheckRef>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// A source address for connections that real servers open themselves.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, extend("required" = ["sources", "ports", "to_source"]))]
pub struct RawOutboundSnat {
    /// Real servers' addresses.
    pub sources: Field<OneOrMany<IpAddr>>,
    /// Default: tcp.
    pub protocol: Field<Protocol>,
    /// Destination ports.
    pub ports: Field<Ports>,
    /// The address that the connections leave with.
    pub to_source: Field<IpAddr>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// A value, or the word `none`.
#[derive(Clone, Debug)]
pub enum NoneOr<T> {
    /// `none`.
    None,
    /// The value.
    Some(T),
}

impl<T: FromYaml> FromYaml for NoneOr<T> {
    fn from_yaml(value: Value) -> Result<Self, String> {
        match value {
            Value::String(word) if word == "none" => Ok(Self::None),
            Value::Null => Err(format!("must not be {}; write none", shown(&Value::Null))),
            value => T::from_yaml(value).map(Self::Some),
        }
    }
}

impl<T: JsonSchema> JsonSchema for NoneOr<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("NoneOr{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"const": "none"}, generator.subschema_for::<T>()]})
    }
}
