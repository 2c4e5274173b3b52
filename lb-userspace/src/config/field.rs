//! Fields that do not stop at the first mistake. [`Field`] never fails to deserialise: what does
//! not fit is kept with the reason, so that the validation reports every one of them.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_yaml::{Mapping, Value};

use super::problem::printable;

/// A value that may be absent or wrong.
#[derive(Clone, Debug, Default)]
pub enum Field<T> {
    /// The key is not in the file.
    #[default]
    Absent,
    /// As it should be.
    Given(T),
    /// The key is there; the text says what is wrong and what would be right.
    Wrong(String),
}

/// What a field can hold.
pub trait FromYaml: Sized {
    /// A key without a value counts as absent (lists and mappings whose entries are commented
    /// out). For scalars it is more likely a slip.
    const MAY_BE_EMPTY: bool = false;

    /// Reads the value.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    fn from_yaml(value: Value) -> Result<Self, String>;
}

impl<'de, T: FromYaml> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Null if T::MAY_BE_EMPTY => Field::Absent,
            value => T::from_yaml(value).map_or_else(Field::Wrong, Field::Given),
        })
    }
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// A list whose entries may be wrong one by one.
pub type List<T> = Vec<Field<T>>;

/// Keys that the file has and the type does not know.
#[derive(Clone, Debug, Default)]
pub struct Unknown(pub Mapping);

impl<'de> Deserialize<'de> for Unknown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Mapping::deserialize(deserializer).map(Self)
    }
}

/// A mapping of the file: knows its own keys.
pub trait Keys: JsonSchema {
    /// The keys that the type knows.
    fn keys() -> Vec<String> {
        let schema = SchemaGenerator::default().into_root_schema_for::<Self>();
        let properties = schema.get("properties").and_then(serde_json::Value::as_object);
        properties.map(|map| map.keys().cloned().collect()).unwrap_or_default()
    }
}

/// Makes serde structs of [`Field`]s usable as fields.
macro_rules! mappings {
    ($($type:ty: $what:literal,)*) => {$(
        impl crate::config::field::Keys for $type {}
        impl crate::config::field::FromYaml for $type {
            const MAY_BE_EMPTY: bool = true;
            fn from_yaml(value: serde_yaml::Value) -> Result<Self, String> {
                match value {
                    serde_yaml::Value::Mapping(_) => {
                        serde_yaml::from_value(value).map_err(|error| error.to_string())
                    }
                    other => Err(format!(
                        "must be {}, not {}", $what, crate::config::field::shown(&other)
                    )),
                }
            }
        }
    )*};
}
pub(super) use mappings;

/// A value as it can be quoted in a message.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "an empty value".into(),
        Value::Bool(flag) => format!("`{flag}`"),
        Value::Number(number) => format!("`{number}`"),
        Value::String(text) => format!("`{}`", printable(text)),
        Value::Sequence(_) => "a list".into(),
        Value::Mapping(_) => "a mapping".into(),
        Value::Tagged(_) => "a value with a tag".into(),
    }
}

impl FromYaml for String {
    fn from_yaml(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(text),
            Value::Bool(_) | Value::Number(_) => {
                Err(format!("must be text, and {} is not; put it in quotes", shown(&value)))
            }
            other => Err(format!("must be text, not {}", shown(&other))),
        }
    }
}

impl FromYaml for PathBuf {
    fn from_yaml(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) if text.starts_with('/') && !text.contains('\0') => Ok(text.into()),
            other => Err(format!("must be an absolute path, not {}", shown(&other))),
        }
    }
}

impl FromYaml for bool {
    fn from_yaml(value: Value) -> Result<Self, String> {
        match value {
            Value::Bool(flag) => Ok(flag),
            other => Err(format!("must be true or false, not {}", shown(&other))),
        }
    }
}

impl FromYaml for u64 {
    fn from_yaml(value: Value) -> Result<Self, String> {
        if let Value::Number(number) = &value
            && let Some(number) = number.as_u64()
        {
            return Ok(number);
        }
        Err(format!("must be a whole number, not {}", shown(&value)))
    }
}

impl FromYaml for IpAddr {
    fn from_yaml(value: Value) -> Result<Self, String> {
        let Value::String(text) = &value else {
            return Err(format!("must be an IPv4 or IPv6 address, not {}", shown(&value)));
        };
        let text = text.trim();
        if let Some((address, _)) = text.split_once('/')
            && address.parse::<IpAddr>().is_ok()
        {
            return Err(format!("must be an address without a prefix length: write {address}"));
        }
        if text.contains('%') {
            return Err("must be an address without a zone (`%…`)".into());
        }
        text.parse().map_err(|_| {
            let text = printable(text);
            format!("must be an IPv4 or IPv6 address, not `{text}` (names are not looked up)")
        })
    }
}

impl<T: FromYaml> FromYaml for Vec<Field<T>> {
    const MAY_BE_EMPTY: bool = true;

    fn from_yaml(value: Value) -> Result<Self, String> {
        let Value::Sequence(values) = value else {
            let shown = shown(&value);
            return Err(format!("must be a list (entries start with `- `), not {shown}"));
        };
        let read = |value| T::from_yaml(value).map_or_else(Field::Wrong, Field::Given);
        Ok(values.into_iter().map(read).collect())
    }
}
