//! Secrets come from files that only their owner can read. They are never logged.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The largest file that is taken for a secret.
const LARGEST: u64 = 64 * 1024;

/// A secret's bytes. Printing it shows nothing of it.
pub struct Secret(Vec<u8>);

impl Secret {
    /// The bytes, for the one place that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The secret as text without the line end that editors put after it.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn as_password(&self) -> Result<&str, &'static str> {
        let text = str::from_utf8(&self.0).map_err(|_| "the password is not UTF-8 text")?;
        Ok(text.strip_suffix('\n').map_or(text, |t| t.strip_suffix('\r').unwrap_or(t)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Reads a secret.
///
/// # Errors
/// In words, with what to do: the file is missing, or others than its owner may read it.
pub fn read(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let cannot = |e: std::io::Error| format!("cannot read {shown}: {e}");
    // Asked before opening: a FIFO would block the open itself.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(format!("{shown} is not a regular file"));
    }
    let file = File::open(path).map_err(cannot)?;
    let found = file.metadata().map_err(cannot)?;
    if found.mode() & 0o077 != 0 {
        return Err(format!(
            "{shown} is open to its group or others (mode {:04o}): chmod 600 it",
            found.mode() & 0o7777
        ));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("{shown} is larger than {LARGEST} bytes: is it the right file?"));
    }
    Ok(Secret(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(mode: u32, text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn a_password_loses_its_line_end_only() {
        for text in ["geheim ", "geheim \n", "geheim \r\n"] {
            let file = file(0o600, text);
            assert_eq!(read(file.path()).unwrap().as_password(), Ok("geheim "));
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_what_to_do() {
        for mode in [0o640, 0o604, 0o620] {
            let file = file(mode, "geheim");
            let error = read(file.path()).unwrap_err();
            assert!(
                error.contains("chmod 600") && error.contains(&format!("{mode:04o}")),
                "{error}"
            );
            assert!(!error.contains("geheim"));
        }
    }

    #[test]
    fn a_missing_file_and_a_directory_are_named() {
        assert!(read(Path::new("/nonexistent/pw")).unwrap_err().contains("/nonexistent/pw"));
        assert!(read(Path::new("/tmp")).unwrap_err().contains("not a regular file"));
    }

    #[test]
    fn printing_a_secret_shows_nothing() {
        let file = file(0o600, "geheim");
        assert_eq!(format!("{:?}", read(file.path()).unwrap()), "Secret(…)");
    }
}
