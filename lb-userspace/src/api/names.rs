//! Names that do not exist: what was meant, and what there is.

/// The message for an unknown name: with the nearest known one, if any is near, and all there are.
pub fn unknown(what: &str, given: &str, known: &[&str]) -> String {
    let mut message = format!("there is no {what} {given:?}");
    let near = known
        .iter()
        .map(|name| (strsim::jaro_winkler(&name.to_lowercase(), &given.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((_, name)) = near {
        message.push_str(&format!(": did you mean {name:?}?"));
    }
    const SHOWN: usize = 20;
    match known {
        [] => message.push_str(" (there is none at all)"),
        _ => {
            let names: Vec<_> = known.iter().take(SHOWN).map(|name| format!("{name:?}")).collect();
            let more = match known.len().saturating_sub(SHOWN) {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            let sentence = if message.ends_with('?') { " There are" } else { "; there are" };
            message.push_str(&format!("{sentence} {}{more}", names.join(", ")));
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_answered_with_what_was_meant_and_what_there_is() {
        let known = ["DICOM-Modalities", "HL7", "PACS-Web"];
        let message = unknown("virtual service", "dicom-modalites", &known);
        assert!(message.contains(r#"did you mean "DICOM-Modalities"?"#), "{message}");
        assert!(message.contains(r#""HL7""#), "{message}");
        let message = unknown("virtual service", "xyz", &known);
        assert!(!message.contains("did you mean"), "{message}");
        assert!(unknown("real server", "x", &[]).contains("none at all"));
    }
}
