//! Taking values out of [`Field`]s: what is wrong is reported, what is absent gets its default.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::field::{Field, Keys, List, Unknown};
use super::super::problem::{At, Report, printable};
use super::super::scalar::{Time, suggestion, time_text};
use super::unusable;

impl Report {
    /// The value, if it is there and right.
    pub(super) fn optional<T>(&mut self, field: Field<T>, at: &At<'_>) -> Option<T> {
        match field {
            Field::Absent => None,
            Field::Given(value) => Some(value),
            Field::Wrong(message) => {
                self.error(at, message);
                None
            }
        }
    }

    /// The value; a missing one is an error. `what` says what to write.
    pub(super) fn required<T>(&mut self, field: Field<T>, at: &At<'_>, what: &str) -> Option<T> {
        if matches!(field, Field::Absent) {
            self.error(at, format!("is missing; {what}"));
        }
        self.optional(field, at)
    }

    /// The value or its default.
    pub(super) fn or<T>(&mut self, field: Field<T>, at: &At<'_>, default: T) -> T {
        self.optional(field, at).unwrap_or(default)
    }

    /// The entries of a list; none when it is absent.
    pub(super) fn list<T>(&mut self, field: Field<List<T>>, at: &At<'_>) -> List<T> {
        self.optional(field, at).unwrap_or_default()
    }

    /// A number within `range`.
    pub(super) fn number(
        &mut self,
        field: Field<u64>,
        at: &At<'_>,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let number = self.optional(field, at)?;
        if range.contains(&number) {
            return Some(number);
        }
        let (least, most) = (range.start(), range.end());
        let size = if number > *most { "large" } else { "small" };
        self.error(at, format!("{number} is too {size}; it must be {least} to {most}"));
        None
    }

    /// A port.
    pub(super) fn port(&mut self, field: Field<u64>, at: &At<'_>) -> Option<u16> {
        let port = self.number(field, at, 1..=u64::from(u16::MAX))?;
        u16::try_from(port).ok()
    }

    /// A 32-bit number within `range`, or its default.
    pub(super) fn u32_or(
        &mut self,
        field: Field<u64>,
        at: &At<'_>,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> u32 {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        let number = self.number(field, at, range);
        number.and_then(|number| u32::try_from(number).ok()).unwrap_or(default)
    }

    /// A duration within `range`.
    pub(super) fn time(
        &mut self,
        field: Field<Time>,
        at: &At<'_>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let Time(time) = self.optional(field, at)?;
        if range.contains(&time) {
            return Some(time);
        }
        let (least, most) = (time_text(*range.start()), time_text(*range.end()));
        let length = if time > *range.end() { "long" } else { "short" };
        let time = time_text(time);
        self.error(at, format!("{time} is too {length}; it must be {least} to {most}"));
        None
    }

    /// An address that packets can be sent to or from.
    pub(super) fn unicast(&mut self, field: Field<IpAddr>, at: &At<'_>) -> Option<IpAddr> {
        let address = self.optional(field, at)?;
        if let Some(why) = unusable(address) {
            self.error(at, format!("{address} {why}"));
            return None;
        }
        Some(address)
    }

    /// A text that is neither empty nor padded nor holds control characters.
    pub(super) fn text(
        &mut self,
        field: Field<String>,
        at: &At<'_>,
        longest: usize,
    ) -> Option<String> {
        let text = self.optional(field, at)?;
        let wrong = if text.is_empty() {
            "must not be empty".to_owned()
        } else if text.len() > longest {
            format!("is {} bytes long; at most {longest} are allowed", text.len())
        } else if text.trim() != text {
            "must not begin or end with a space".to_owned()
        } else if text.chars().any(char::is_control) {
            format!("must not contain control characters, as `{}` does", printable(&text))
        } else {
            return Some(text);
        };
        self.error(at, wrong);
        None
    }

    /// Reports the keys that the mapping does not know.
    pub(super) fn unknown<T: Keys>(&mut self, unknown: &Unknown, at: &At<'_>) {
        if unknown.0.is_empty() {
            return;
        }
        let mut keys = T::keys();
        keys.sort();
        for key in unknown.0.keys().filter_map(|key| key.as_str()) {
            let hint = match suggestion(key, keys.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("the keys here are {}", keys.join(", ")),
            };
            self.error(&at.key(key), format!("unknown key `{}`; {hint}", printable(key)));
        }
    }
}
