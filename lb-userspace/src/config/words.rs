//! Fields that take one of a few words.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_yaml::Value;

use super::field::{FromYaml, shown};
use super::model::{ForwardingMethod, OnBusy, Protocol, Scheduler, ServiceMode, XdpMode};
use super::scalar::suggestion;

macro_rules! words {
    ($($type:ident { $($word:literal => $value:expr,)* })*) => {$(
        impl FromYaml for $type {
            fn from_yaml(value: Value) -> Result<Self, String> {
                match value.as_str() {
                    $(Some($word) => Ok($value),)*
                    _ => Err(not_a_word(&value, &[$($word),*])),
                }
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "enum": [$($word),*]})
            }
        }
    )*};
}

words! {
    XdpMode { "auto" => XdpMode::Auto, "native" => XdpMode::Native, "generic" => XdpMode::Generic, }
    Protocol { "tcp" => Protocol::Tcp, "udp" => Protocol::Udp, "tcp+udp" => Protocol::TcpUdp, }
    ForwardingMethod {
        "dr" => ForwardingMethod::Dr,
        "nat" => ForwardingMethod::Nat,
        "snat" => ForwardingMethod::Snat,
    }
    Scheduler {
        "wlc" => Scheduler::Wlc,
        "lc" => Scheduler::Lc,
        "wrr" => Scheduler::Wrr,
        "rr" => Scheduler::Rr,
        "sh" => Scheduler::Sh,
        "maglev" => Scheduler::Maglev,
    }
    ServiceMode {
        "load-balanced" => ServiceMode::LoadBalanced,
        "failover" => ServiceMode::Failover,
    }
    OnBusy { "up" => OnBusy::Up, "drain" => OnBusy::Drain, "down" => OnBusy::Down, }
    Established { "reset" => Established::Reset, "keep" => Established::Keep, }
    Stored { "drop" => Stored::Drop, "keep" => Stored::Keep, }
    Via { "vip" => Via::Vip, "rip" => Via::Rip, }
    Accept { "echo" => Accept::Echo, "association" => Accept::Association, }
    MllpMode { "connect" => MllpMode::Connect, "message" => MllpMode::Message, }
    Expect { "any" => Expect::Any, "AA" => Expect::Aa, }
    MssqlLevel { "connect" => MssqlLevel::Connect, "prelogin" => MssqlLevel::Prelogin, }
    CheckType {
        "connect" => CheckType::Connect,
        "dicom-echo" => CheckType::DicomEcho,
        "mllp" => CheckType::Mllp,
        "http" => CheckType::Http,
        "https" => CheckType::Https,
        "ldap" => CheckType::Ldap,
        "ldaps" => CheckType::Ldaps,
        "mssql" => CheckType::Mssql,
        "ping" => CheckType::Ping,
        "external" => CheckType::External,
        "none" => CheckType::None,
    }
}

fn not_a_word(value: &Value, words: &[&str]) -> String {
    let list = words.join(", ");
    let hint = value.as_str().and_then(|text| suggestion(text, words.iter().copied()));
    let hint = hint.map(|word| format!("; did you mean `{word}`?")).unwrap_or_default();
    format!("must be one of {list}, not {}{hint}", shown(value))
}

/// `on_down.established`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Established {
    /// Reset them.
    Reset,
    /// Keep forwarding.
    Keep,
}

/// `on_down.persistence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Forget the entries.
    Drop,
    /// Keep them for when the server comes back.
    Keep,
}

/// `via`: which address a check's packets carry in DR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The VIP, as clients' packets do.
    Vip,
    /// The real server's own.
    Rip,
}

/// `accept` of a `dicom-echo` check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// A successful C-ECHO.
    Echo,
    /// An accepted association.
    Association,
}

/// `mode` of an `mllp` check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MllpMode {
    /// Connect and hold.
    Connect,
    /// Send a message and wait for its acknowledgement.
    Message,
}

/// `expect` of an `mllp` check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Any well-formed acknowledgement.
    Any,
    /// An application accept.
    Aa,
}

/// `level` of an `mssql` check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MssqlLevel {
    /// TCP only.
    Connect,
    /// A TDS pre-login exchange.
    Prelogin,
}

/// `type` of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckType {
    /// TCP connect.
    Connect,
    /// DICOM C-ECHO.
    DicomEcho,
    /// HL7 over MLLP.
    Mllp,
    /// HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// LDAP simple bind.
    Ldap,
    /// LDAP over TLS.
    Ldaps,
    /// Microsoft SQL Server.
    Mssql,
    /// ICMP echo.
    Ping,
    /// A script.
    External,
    /// Always up.
    None,
}

impl CheckType {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            CheckType::Connect => "connect",
            CheckType::DicomEcho => "dicom-echo",
            CheckType::Mllp => "mllp",
            CheckType::Http => "http",
            CheckType::Https => "https",
            CheckType::Ldap => "ldap",
            CheckType::Ldaps => "ldaps",
            CheckType::Mssql => "mssql",
            CheckType::Ping => "ping",
            CheckType::External => "external",
            CheckType::None => "none",
        }
    }
}
