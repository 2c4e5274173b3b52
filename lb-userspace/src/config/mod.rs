//! The configuration file: `raw` is its shape in YAML, `model` what it means once it is known to
//! be right, `validate` the way from one to the other. Every error is reported at once, with its
//! path and line. Nothing here touches the network; [`host`] alone looks at the machine.

mod field;
pub mod host;
mod lines;
pub mod model;
mod problem;
mod raw;
mod raw_check;
mod scalar;
mod validate;
mod words;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_yaml::Value;
use sha2::{Digest, Sha256};

use field::FromYaml;
use lines::Lines;
use model::Config;
use problem::{At, Report};
pub use problem::{ConfigErrors, Problem};

/// A larger file is not a configuration.
const LARGEST: u64 = 4 * 1024 * 1024;

/// A file that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What may not be what the operator meant, sorted by line.
    pub warnings: Vec<Problem>,
    lines: Lines,
}

impl Loaded {
    /// Puts the file's lines to problems that were found later, by the functions of [`host`].
    pub fn locate(&self, problems: &mut [Problem]) {
        for problem in problems {
            problem.line = problem.line.or_else(|| self.lines.of_path(&problem.path));
        }
    }
}

/// Reads and validates a file.
///
/// # Errors
/// Everything that is wrong with it, or why it cannot be read.
pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
    let fail = |message: String| ConfigErrors::single(None, message);
    let cannot = |error: std::io::Error| fail(format!("cannot read the file: {error}"));
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if metadata.is_dir() {
        return Err(fail("is a directory; name the YAML file in it".into()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LARGEST {
        return Err(too_large());
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        ConfigErrors::single(Some(line), "is not UTF-8 text; save the file as UTF-8")
    })?;
    parse(text)
}

/// Validates the text of a file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str) -> Result<Loaded, ConfigErrors> {
    if text.len() as u64 > LARGEST {
        return Err(too_large());
    }
    let hash = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::read(text)?;
    let mut value: Value = serde_yaml::from_str(text).map_err(|error| not_yaml(&error))?;
    let mut report = Report::new(lines);
    clean(&mut value, &At::ROOT, &mut report);
    if let Err(error) = value.apply_merge() {
        report.error(&At::ROOT, format!("a merge key (<<) cannot be followed: {error}"));
    }
    let raw = match value {
        Value::Null => Err("the file is empty; it needs at least interfaces".to_owned()),
        value => raw::RawConfig::from_yaml(value),
    };
    let config = match raw {
        Ok(raw) => validate::config(raw, hash, &mut report),
        Err(message) => {
            report.error(&At::ROOT, message);
            None
        }
    };
    let (warnings, lines) = report.finish()?;
    // Validation gives nothing only after it reported why.
    let config = config.ok_or_else(|| ConfigErrors::single(None, "the file is not usable"))?;
    Ok(Loaded { config, warnings, lines })
}

/// The JSON Schema of the file, for editors.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(raw::RawConfig)
}

fn not_yaml(error: &serde_yaml::Error) -> ConfigErrors {
    let line = error.location().map(|location| location.line());
    let message = error.to_string();
    if message.contains("as u128") || message.contains("as i128") {
        return ConfigErrors::single(line, "a number here has more digits than any may have");
    }
    ConfigErrors::single(line, format!("not valid YAML: {message}"))
}

fn too_large() -> ConfigErrors {
    ConfigErrors::single(None, "is larger than 4 MiB, which no configuration needs to be")
}

/// Takes out what no field can hold: values with a tag of their own, keys that are no text.
fn clean(value: &mut Value, at: &At<'_>, report: &mut Report) {
    match value {
        Value::Tagged(tagged) => {
            report.error(at, format!("the tag {} has no meaning here; remove it", tagged.tag));
            let mut inner = std::mem::replace(&mut tagged.value, Value::Null);
            clean(&mut inner, at, report);
            *value = inner;
        }
        Value::Sequence(values) => {
            for (index, value) in values.iter_mut().enumerate() {
                clean(value, &at.index(index), report);
            }
        }
        Value::Mapping(mapping) => {
            mapping.retain(|key, value| {
                let Some(text) = key.as_str() else {
                    let shown = field::shown(key);
                    report.error(at, format!("the key {shown} is not text; put it in quotes"));
                    return false;
                };
                clean(value, &at.key(text), report);
                true
            });
        }
        _ => {}
    }
}
