//! Whatever is in the file: an answer, and no panic.

use proptest::prelude::*;

use super::super::parse;
use super::BASE;

const EVERY_KEY: &str = include_str!("every-key.yaml");

/// Pieces that YAML or the configuration treats in a special way.
const PIECES: [&str; 40] = [
    "- ",
    ": ",
    "\n",
    "  ",
    "\t",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "!t ",
    "<<: ",
    "|\n",
    ">\n",
    "\"",
    "'",
    "#",
    "---\n",
    "...\n",
    "?",
    "~",
    "null",
    "true",
    "no",
    "0",
    "-1",
    "1e400",
    ".nan",
    "65536",
    "18446744073709551616",
    "10.0.0.1",
    "::1",
    "10.0.0.0/8",
    "1h",
    "9999999999999d",
    "*",
    "é",
    "\u{0}",
    "\u{feff}",
];

/// A valid file with pieces cut out, put in and repeated.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0_usize..24, 0_usize..PIECES.len(), any::<bool>());
    let base = prop::sample::select(vec![BASE, EVERY_KEY]);
    (base, prop::collection::vec(edit, 1..8)).prop_map(|(base, edits)| {
        let mut text: Vec<char> = base.chars().collect();
        for (place, cut, piece, line) in edits {
            let start = place.index(text.len() + 1);
            let end = (start + cut).min(text.len());
            let mut insert: Vec<char> = PIECES[piece].chars().collect();
            if line {
                insert = text[start..end].iter().copied().chain(insert).collect();
            }
            text.splice(start..end, insert);
        }
        text.into_iter().collect()
    })
}

/// Values of one kind in the place of another.
fn swapped() -> impl Strategy<Value = String> {
    let lines: Vec<&str> = EVERY_KEY.lines().collect();
    let count = lines.len();
    (0..count, 0_usize..PIECES.len(), 0_usize..count).prop_map(move |(at, piece, from)| {
        let mut lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        let key = lines[at].split_once(": ").map(|(key, _)| key.to_owned());
        lines[at] = match key {
            Some(key) if piece % 2 == 0 => format!("{key}: {}", PIECES[piece]),
            _ => lines[from].clone(),
        };
        lines.join("\n")
    })
}

proptest! {
    #[test]
    fn a_mutated_file_never_panics(text in mutated()) {
        if let Err(errors) = parse(&text) {
            prop_assert!(!errors.errors.is_empty());
            prop_assert!(errors.errors.iter().all(|error| !error.message.is_empty()));
        }
    }

    #[test]
    fn a_file_with_values_in_the_wrong_places_never_panics(text in swapped()) {
        let _ = parse(&text);
    }

    #[test]
    fn random_text_never_panics(text in r"[ -~\n\t]{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn lines_are_lines_of_the_file(text in swapped()) {
        if let Err(errors) = parse(&text) {
            let count = text.lines().count() + 1;
            for error in errors.errors {
                prop_assert!(error.line.is_none_or(|line| (1..=count).contains(&line)), "{error}");
            }
        }
    }
}
