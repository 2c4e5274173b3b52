//! The shape of a health check in the file. All types share one struct: which field belongs to
//! which type is for the validation to say.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_yaml::Value;

use super::field::{Field, FromYaml, Unknown, mappings, shown};
use super::model::OnBusy;
use super::scalar::{Command, Status, Time};
use super::words::{Accept, CheckType, Expect, MllpMode, MssqlLevel, Via};

mappings! {
    RawCheck: "a mapping such as {type: connect}",
    RawTls: "true, false or a mapping such as {verify: false}",
}

/// A health check.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, extend("required" = ["type"]))]
pub struct RawCheck {
    /// The exchange.
    #[serde(rename = "type")]
    pub kind: Field<CheckType>,
    /// From the start of one check to the start of the next.
    pub interval: Field<Time>,
    /// For the whole exchange.
    pub timeout: Field<Time>,
    /// Passes that bring a server up.
    #[schemars(range(min = 1, max = 1000))]
    pub rise: Field<u64>,
    /// Failures that take a server down.
    #[schemars(range(min = 1, max = 1000))]
    pub fall: Field<u64>,
    /// Port to check. Default: the real server's, or the service's first.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Field<u64>,
    /// rip: check the server's own address also in DR, not through the VIP. Default: vip.
    pub via: Field<Via>,
    /// dicom-echo: our AE title. Default: MEDLB.
    pub calling_ae: Field<String>,
    /// dicom-echo: the server's AE title. Default: ANY-SCP.
    pub called_ae: Field<String>,
    /// dicom-echo, mllp, https, ldaps: TLS.
    pub tls: Field<TlsField>,
    /// dicom-echo: what a transient rejection means. Default: up.
    pub on_busy: Field<OnBusy>,
    /// dicom-echo: what passes. Default: echo.
    pub accept: Field<Accept>,
    /// mllp: default connect, or message where `message` or `expect` is given.
    pub mode: Field<MllpMode>,
    /// mllp: the message to send. Default: an NMQ^N01 query.
    pub message: Field<String>,
    /// mllp: the acknowledgement that passes. Default: any.
    pub expect: Field<Expect>,
    /// http, https: request target. Default: /.
    pub path: Field<String>,
    /// http, https: default GET.
    pub method: Field<String>,
    /// http, https: Host header and server name. Default: the VIP.
    pub host: Field<String>,
    /// http, https: accepted status codes. Default: 200-399.
    pub status: Field<Status>,
    /// http, https: a regular expression that the body must match.
    pub body: Field<String>,
    /// ldap, ldaps: default anonymous.
    pub bind_dn: Field<String>,
    /// ldap, ldaps: file that holds the password of bind_dn.
    pub password_file: Field<PathBuf>,
    /// ldap, ldaps: entry that must exist.
    pub base: Field<String>,
    /// mssql: default prelogin.
    pub level: Field<MssqlLevel>,
    /// ping: requests in one check; one reply passes. Default: 1.
    #[schemars(range(min = 1, max = 10))]
    pub count: Field<u64>,
    /// external: program and arguments before VIP VPT RIP RPT.
    pub command: Field<Command>,
    /// external: the user that it runs as. Default: nobody.
    pub user: Field<String>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// A check, or the name of one.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum CheckRef {
    /// A name from health_checks, or none.
    Named(String),
    /// The check itself.
    Inline(Box<RawCheck>),
}

impl FromYaml for CheckRef {
    fn from_yaml(value: Value) -> Result<Self, String> {
        match value {
            Value::String(name) => Ok(Self::Named(name)),
            Value::Mapping(_) => RawCheck::from_yaml(value).map(|check| Self::Inline(check.into())),
            other => Err(format!(
                "must be a name from health_checks, a mapping such as {{type: connect}} or none, \
                 not {}",
                shown(&other)
            )),
        }
    }
}

/// `true`, `false` or the details.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum TlsField {
    /// On with verification, or off.
    Switch(bool),
    /// On, with details.
    Details(Box<RawTls>),
}

impl FromYaml for TlsField {
    fn from_yaml(value: Value) -> Result<Self, String> {
        match value {
            Value::Bool(on) => Ok(Self::Switch(on)),
            value => RawTls::from_yaml(value).map(|tls| Self::Details(tls.into())),
        }
    }
}

/// TLS of a check.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct RawTls {
    /// Verify the server's certificate. Default: true.
    pub verify: Field<bool>,
    /// CA certificates (PEM). Default: the system's.
    pub ca_file: Field<PathBuf>,
    /// Client certificate chain (PEM).
    pub cert_file: Field<PathBuf>,
    /// Client key (PEM).
    pub key_file: Field<PathBuf>,
    /// Name to verify and to send. Default: the address.
    pub server_name: Field<String>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// `health_checks`, in file order.
#[derive(Clone, Debug, Default)]
pub struct NamedChecks(pub Vec<(String, Field<RawCheck>)>);

impl FromYaml for NamedChecks {
    const MAY_BE_EMPTY: bool = true;

    fn from_yaml(value: Value) -> Result<Self, String> {
        let Value::Mapping(mapping) = value else {
            let shown = shown(&value);
            return Err(format!("must be a mapping from names to checks, not {shown}"));
        };
        let read = |(name, value): (Value, Value)| {
            let check = match value {
                Value::Null => Field::Absent,
                value => RawCheck::from_yaml(value).map_or_else(Field::Wrong, Field::Given),
            };
            // Keys that are no text were reported and taken out before.
            (name.as_str().unwrap_or_default().to_owned(), check)
        };
        Ok(Self(mapping.into_iter().map(read).collect()))
    }
}

impl JsonSchema for NamedChecks {
    fn schema_name() -> Cow<'static, str> {
        "NamedChecks".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let check = generator.subschema_for::<RawCheck>();
        json_schema!({"type": "object", "additionalProperties": check})
    }
}
