//! The small notations of the file: durations, ports, status codes, commands, words.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_yaml::Value;

use super::field::{FromYaml, List, shown};
use super::problem::printable;

/// `500ms`, `6s`, `5m`, `1h`, `1d`, `1h30m`, or a bare number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

/// Longer than any timer here is meant to run, and far from overflowing one.
const LONGEST: f64 = 10.0 * 365.0 * 86400.0;

impl FromYaml for Time {
    fn from_yaml(value: Value) -> Result<Self, String> {
        let seconds = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => seconds(text.trim()),
            _ => None,
        };
        match seconds {
            Some(seconds) if (0.0..=LONGEST).contains(&seconds) => {
                Ok(Self(Duration::from_micros((seconds * 1e6).round() as u64)))
            }
            Some(seconds) if seconds > LONGEST => {
                Err(format!("{} is longer than ten years", shown(&value)))
            }
            _ => Err(format!(
                "must be a duration such as 500ms, 6s, 5m, 1h, 1d or a number of seconds, not {}",
                shown(&value)
            )),
        }
    }
}

/// Seconds in a text such as `1h30m` or `3600`.
fn seconds(text: &str) -> Option<f64> {
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    if text.ends_with(digits) && text.chars().all(digits) {
        return text.parse().ok();
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c| !digits(c))?);
        let (unit, tail) =
            tail.split_at(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()));
        let scale = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "500ms, 6s, 5m, 1h, 1d, or a number of seconds",
            "anyOf": [
                {"type": "string", "pattern": r"^([0-9.]+(ms|s|m|h|d))+$|^[0-9.]+$"},
                {"type": "number", "minimum": 0},
            ],
        })
    }
}

/// A duration as an operator writes it.
pub fn time_text(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    match seconds {
        _ if millis != 0 => format!("{}ms", time.as_millis()),
        0 => "0s".into(),
        s if s % 86400 == 0 => format!("{}d", s / 86400),
        s if s % 3600 == 0 => format!("{}h", s / 3600),
        s if s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// One number, `80,443,5014-5019`, a list of either, or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Sorted, disjoint, not adjacent; never empty.
    pub ranges: Vec<RangeInclusive<u16>>,
    /// As written, without spaces.
    pub text: String,
    /// A port that the text names more than once.
    pub repeated: Option<u16>,
}

/// What `*` stands for: port 0 is not a port that a packet may carry.
pub const EVERY_PORT: RangeInclusive<u16> = 1..=u16::MAX;

impl FromYaml for Ports {
    fn from_yaml(value: Value) -> Result<Self, String> {
        let mut parts = Vec::new();
        for value in one_or_many(value) {
            match value {
                Value::Number(_) => parts.push(shown(&value).trim_matches('`').to_owned()),
                Value::String(text) => {
                    parts.extend(text.split(',').map(|part| part.replace(' ', "")));
                }
                other => return Err(format!("must be ports, {PORTS}; not {}", shown(&other))),
            }
        }
        if parts.iter().all(String::is_empty) {
            return Err(format!("names no port; write {PORTS}"));
        }
        let text = parts.join(",");
        if parts == ["*"] {
            return Ok(Self { ranges: vec![EVERY_PORT], text, repeated: None });
        }
        let mut ranges = parts.iter().map(|part| range(part)).collect::<Result<Vec<_>, _>>()?;
        ranges.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
        let mut repeated = None;
        for range in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                    if range.start() <= last.end() {
                        repeated.get_or_insert(*range.start());
                    }
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Ok(Self { ranges: merged, text, repeated })
    }
}

const PORTS: &str = "such as 104, \"104,11112\", \"5014-5019\" or \"*\" for every port";

/// `104` or `5014-5019`.
fn range(part: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last) = (port(first, part)?, port(last, part)?);
    if first > last {
        return Err(format!("`{part}` runs backwards; write {last}-{first}"));
    }
    Ok(first..=last)
}

fn port(text: &str, part: &str) -> Result<u16, String> {
    let part = printable(part);
    if part == "*" {
        return Err("`*` already means every port; leave the others out".into());
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("`{part}` is not a port; write {PORTS}"));
    }
    match text.parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("`{part}` is out of range; ports are 1 to 65535")),
    }
}

impl JsonSchema for Ports {
    fn schema_name() -> Cow<'static, str> {
        "Ports".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = json_schema!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 65535},
            {"type": "string", "pattern": r"^[0-9]+(-[0-9]+)?( *, *[0-9]+(-[0-9]+)?)*$"},
        ]});
        json_schema!({
            "description": "One port, \"80,443,5014-5019\", a list of either, or \"*\"",
            "anyOf": [{"const": "*"}, one, {"type": "array", "items": one, "minItems": 1}],
        })
    }
}

/// `61000-65535`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(pub RangeInclusive<u16>);

impl FromYaml for PortRange {
    fn from_yaml(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => range(&text.replace(' ', "")).map(Self),
            other => {
                Err(format!("must be a range of ports, as 61000-65535, not {}", shown(&other)))
            }
        }
    }
}

impl JsonSchema for PortRange {
    fn schema_name() -> Cow<'static, str> {
        "PortRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]+ *- *[0-9]+$"})
    }
}

/// HTTP status codes: `200`, `"200-399"`, `"200,301-302"` or a list of either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status(pub Vec<RangeInclusive<u16>>);

impl FromYaml for Status {
    fn from_yaml(value: Value) -> Result<Self, String> {
        let wrong = |text: &str| format!("must be status codes such as 200 or 200-399, not {text}");
        let mut ranges = Vec::new();
        for value in one_or_many(value) {
            let shown = shown(&value);
            let (Value::Number(_) | Value::String(_)) = value else { return Err(wrong(&shown)) };
            for part in shown.trim_matches('`').split(',').map(str::trim) {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                match (first.trim().parse(), last.trim().parse()) {
                    (Ok(first), Ok(last)) if 100 <= first && first <= last && last <= 599 => {
                        ranges.push(first..=last);
                    }
                    _ => return Err(wrong(&shown)),
                }
            }
        }
        if ranges.is_empty() { Err(wrong("an empty list")) } else { Ok(Self(ranges)) }
    }
}

impl JsonSchema for Status {
    fn schema_name() -> Cow<'static, str> {
        "Status".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = json_schema!({"anyOf": [
            {"type": "integer", "minimum": 100, "maximum": 599},
            {"type": "string", "pattern": r"^[0-9]{3}(-[0-9]{3})?( *, *[0-9]{3}(-[0-9]{3})?)*$"},
        ]});
        json_schema!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})
    }
}

/// A program and its first arguments: a text that is split as a shell would, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command(pub Vec<String>);

impl FromYaml for Command {
    fn from_yaml(value: Value) -> Result<Self, String> {
        let words = match value {
            Value::String(text) => {
                shlex::split(&text).ok_or("has a quote that is not closed".to_owned())?
            }
            Value::Sequence(values) => {
                values.into_iter().map(String::from_yaml).collect::<Result<_, _>>()?
            }
            other => return Err(format!("must be a command line, not {}", shown(&other))),
        };
        match words.first() {
            Some(program) if program.starts_with('/') => {}
            Some(program) => {
                let program = printable(program);
                return Err(format!("must start with an absolute path, not `{program}`"));
            }
            None => return Err("must not be empty".into()),
        }
        if words.iter().any(|word| word.contains('\0')) {
            return Err("must not contain a zero byte".into());
        }
        Ok(Self(words))
    }
}

impl JsonSchema for Command {
    fn schema_name() -> Cow<'static, str> {
        "Command".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
        ]})
    }
}

/// A value, or a list of such.
#[derive(Clone, Debug)]
pub struct OneOrMany<T>(pub List<T>);

impl<T: FromYaml> FromYaml for OneOrMany<T> {
    fn from_yaml(value: Value) -> Result<Self, String> {
        List::from_yaml(Value::Sequence(one_or_many(value))).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})
    }
}

fn one_or_many(value: Value) -> Vec<Value> {
    match value {
        Value::Sequence(values) => values,
        value => vec![value],
    }
}

/// The candidate that `word` was probably meant to be.
pub fn suggestion<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', ' '], "_");
    let word = plain(word);
    if word.len() > 60 {
        return None;
    }
    let mut best = None;
    for candidate in candidates {
        let distance = strsim::damerau_levenshtein(&word, &plain(candidate));
        let close = distance <= (word.len().max(candidate.len()) / 3).max(1);
        if close && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}
