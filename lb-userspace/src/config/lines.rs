//! Which line of the file each key and list entry is on. serde's values carry no positions, so the
//! file's events are read once more into a tree of lines. The same pass finds what would be lost or
//! dangerous in serde's: duplicate keys, several documents, aliases that multiply, deep nesting.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser};

use super::problem::{At, ConfigErrors, Problem, Step};

/// Nesting deeper than this is no configuration of ours (which needs 6 levels).
const DEEPEST: usize = 32;

/// Values after aliases are followed. 1,000 services with 10 servers each are some 200,000.
const MOST_VALUES: u64 = 2_000_000;

/// The lines of a file.
#[derive(Clone, Debug)]
pub struct Lines(Rc<Node>);

#[derive(Debug)]
struct Node {
    line: usize,
    children: Children,
    /// Values in here, aliases followed.
    values: u64,
    /// Levels in here, aliases followed.
    depth: usize,
}

#[derive(Debug)]
enum Children {
    None,
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

#[derive(Debug)]
struct Entry {
    key: String,
    line: usize,
    value: Rc<Node>,
    /// The value is an alias: it was looked at where its anchor stands.
    alias: bool,
}

/// A collection that is still open.
struct Open {
    line: usize,
    anchor: usize,
    map: bool,
    list: Vec<Rc<Node>>,
    entries: Vec<Entry>,
    /// Key of a mapping that waits for its value.
    key: Option<(String, usize)>,
}

impl Lines {
    /// Reads the lines of `text`.
    ///
    /// # Errors
    /// A syntax error, with its line; everything that the module's introduction lists.
    pub fn read(text: &str) -> Result<Self, ConfigErrors> {
        let mut builder = Builder::default();
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| syntax(text, &error))?;
            builder.event(event, span.start.line())?;
        }
        let Some(root) = builder.root else {
            return Err(ConfigErrors::single(None, "the file is empty"));
        };
        let mut duplicates = Vec::new();
        find_duplicates(&root, &At::ROOT, &mut duplicates);
        if !duplicates.is_empty() {
            return Err(ConfigErrors { errors: duplicates, warnings: Vec::new() });
        }
        Ok(Self(root))
    }

    /// The line of a place, or of the nearest place above that the file has.
    pub(super) fn of(&self, steps: &[Step<'_>]) -> Option<usize> {
        let (mut node, mut line) = (&self.0, None);
        for step in steps {
            let (next, at) = match (step, &node.children) {
                (Step::Index(index), Children::List(list)) => match list.get(*index) {
                    Some(child) => (child, child.line),
                    None => break,
                },
                (Step::Key(key), Children::Map(entries)) => match find(entries, key) {
                    Some(found) => found,
                    None => break,
                },
                _ => break,
            };
            node = next;
            line = Some(at);
        }
        line
    }

    /// The line of a path as it is written in a [`Problem`].
    pub fn of_path(&self, path: &str) -> Option<usize> {
        let mut steps = Vec::new();
        for part in path.split('.').filter(|part| !part.is_empty()) {
            let mut pieces = part.split('[');
            steps.extend(pieces.next().map(Step::Key));
            for piece in pieces {
                steps.push(Step::Index(piece.trim_end_matches(']').parse().ok()?));
            }
        }
        self.of(&steps)
    }
}

/// The entry of `key`, also among what `<<` merges in.
fn find<'a>(entries: &'a [Entry], key: &str) -> Option<(&'a Rc<Node>, usize)> {
    if let Some(entry) = entries.iter().find(|entry| entry.key == key) {
        return Some((&entry.value, entry.line));
    }
    let merged = entries.iter().find(|entry| entry.key == "<<")?;
    match &merged.value.children {
        Children::Map(entries) => find(entries, key),
        Children::List(list) => list.iter().find_map(|node| match &node.children {
            Children::Map(entries) => find(entries, key),
            _ => None,
        }),
        Children::None => None,
    }
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    documents: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), ConfigErrors> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second YAML document starts here; keep one (remove the ---)";
                    return Err(ConfigErrors::single(Some(line), message));
                }
            }
            Event::Scalar(text, _, anchor, _) => {
                let node = Node { line, children: Children::None, values: 1, depth: 0 };
                self.close(Rc::new(node), anchor, Some(&text), false)?;
            }
            Event::SequenceStart(anchor, _) => self.push(line, anchor, false)?,
            Event::MappingStart(anchor, _) => self.push(line, anchor, true)?,
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    let anchor = open.anchor;
                    self.close(Rc::new(open.finish()), anchor, None, false)?;
                }
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    let message = "this alias refers to a value that contains it";
                    return Err(ConfigErrors::single(Some(line), message));
                };
                self.close(node, 0, None, true)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn push(&mut self, line: usize, anchor: usize, map: bool) -> Result<(), ConfigErrors> {
        if self.open.len() == DEEPEST {
            return Err(too_deep(line));
        }
        let (list, entries) = (Vec::new(), Vec::new());
        self.open.push(Open { line, anchor, map, list, entries, key: None });
        Ok(())
    }

    /// A value is complete: it becomes a key, a value or an entry of the collection around it.
    fn close(
        &mut self,
        node: Rc<Node>,
        anchor: usize,
        scalar: Option<&str>,
        alias: bool,
    ) -> Result<(), ConfigErrors> {
        if self.open.len() + node.depth > DEEPEST {
            return Err(too_deep(node.line));
        }
        if node.values > MOST_VALUES {
            let message = "aliases make this file unreasonably large; write values out";
            return Err(ConfigErrors::single(Some(node.line), message));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        if !open.map {
            open.list.push(node);
            return Ok(());
        }
        match open.key.take() {
            // A key that is not a scalar is reported when the values are read.
            None => open.key = Some((scalar.unwrap_or_default().to_owned(), node.line)),
            Some((key, line)) => open.entries.push(Entry { key, line, value: node, alias }),
        }
        Ok(())
    }
}

impl Open {
    fn finish(self) -> Node {
        let (mut values, mut depth) = (1_u64, 0);
        for child in self.list.iter().chain(self.entries.iter().map(|entry| &entry.value)) {
            values = values.saturating_add(child.values);
            depth = depth.max(child.depth);
        }
        let children =
            if self.map { Children::Map(self.entries) } else { Children::List(self.list) };
        Node { line: self.line, children, values, depth: depth + 1 }
    }
}

fn find_duplicates(node: &Node, at: &At<'_>, problems: &mut Vec<Problem>) {
    match &node.children {
        Children::None => {}
        Children::List(list) => {
            for (index, child) in list.iter().enumerate() {
                find_duplicates(child, &at.index(index), problems);
            }
        }
        Children::Map(entries) => {
            let mut seen = HashMap::new();
            for entry in entries {
                let here = at.key(&entry.key);
                if let Some(first) = seen.insert(&entry.key, entry.line) {
                    let message =
                        format!("the key is given twice (first on line {first}); keep one");
                    let (path, line) = (here.to_string(), Some(entry.line));
                    problems.push(Problem { path, line, message });
                }
                if !entry.alias {
                    find_duplicates(&entry.value, &here, problems);
                }
            }
        }
    }
}

fn too_deep(line: usize) -> ConfigErrors {
    ConfigErrors::single(Some(line), format!("nested deeper than {DEEPEST} levels"))
}

/// A scanner's error, with advice where the cause is a usual one.
fn syntax(text: &str, error: &saphyr_parser::ScanError) -> ConfigErrors {
    let line = error.marker().line();
    // The scanner marks the start of what it was reading, which may be a line or two above.
    let near = text.lines().enumerate().skip(line.saturating_sub(2)).take(4);
    let indented = |text: &str| text.trim_start_matches([' ', '-']).starts_with('\t');
    if let Some((index, _)) = near.into_iter().find(|(_, line)| indented(line)) {
        let message = "not valid YAML: a tab is used for indentation; use spaces";
        return ConfigErrors::single(Some(index + 1), message);
    }
    ConfigErrors::single(Some(line), format!("not valid YAML: {}", error.info()))
}
