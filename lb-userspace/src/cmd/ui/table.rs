//! Aligned columns.

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

use super::{BOLD, Paint};

/// One cell.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// In this style.
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: super::printable(&text.into()), style }
    }

    /// Coloured by what it says.
    pub fn word(text: &str) -> Self {
        Self::styled(text, super::style_of(text))
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::new())
    }
}

/// Rows under a heading; columns as wide as their widest cell.
#[derive(Debug)]
pub struct Table {
    heading: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
    indent: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

impl Table {
    /// With these column headings. A heading that begins with `>` is of a column of numbers, which
    /// is aligned to the right.
    pub fn new(heading: &[&'static str]) -> Self {
        let column = |h: &&'static str| match h.strip_prefix('>') {
            Some(h) => (h, Align::Right),
            None => (*h, Align::Left),
        };
        Self { heading: heading.iter().map(column).collect(), rows: Vec::new(), indent: 0 }
    }

    /// Moved to the right.
    pub fn indented(mut self, columns: usize) -> Self {
        self.indent = columns;
        self
    }

    /// Adds a row. Missing cells are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, each line ended.
    pub fn render(&self, paint: Paint) -> String {
        let widths: Vec<usize> = (0..self.heading.len())
            .map(|i| {
                let cells = self.rows.iter().filter_map(|row| row.get(i));
                let widest = cells.map(|cell| cell.text.width()).max().unwrap_or(0);
                widest.max(self.heading[i].0.width())
            })
            .collect();
        let mut out = String::new();
        let heading: Vec<Cell> =
            self.heading.iter().map(|(text, _)| Cell::styled(*text, BOLD)).collect();
        for row in std::iter::once(&heading).chain(&self.rows) {
            self.line(&mut out, row, &widths, paint);
        }
        out
    }

    fn line(&self, out: &mut String, row: &[Cell], widths: &[usize], paint: Paint) {
        out.push_str(&" ".repeat(self.indent));
        let last = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
        for (i, (cell, width)) in row.iter().zip(widths).enumerate().take(last + 1) {
            let pad = " ".repeat(width.saturating_sub(cell.text.width()));
            let text = paint.apply(cell.style, &cell.text);
            match self.heading[i].1 {
                Align::Right => out.extend([pad.as_str(), &text]),
                Align::Left if i == last => out.push_str(&text), // no blanks at a line's end
                Align::Left => out.extend([text.as_str(), &pad]),
            }
            if i < last {
                out.push_str("  ");
            }
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["SERVICE", ">CONNS", "DETAIL"]);
        table.row(["Röntgen".into(), "7".into(), "ok".into()]);
        table.row([Cell::word("up"), "1234".into(), "".into()]);
        table
    }

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let expected = "SERVICE  CONNS  DETAIL\nRöntgen      7  ok\nup        1234\n";
        assert_eq!(sample().render(Paint::plain()), expected);
    }

    #[test]
    fn colours_do_not_move_columns() {
        let coloured = sample().render(Paint::colourful());
        assert!(coloured.contains("\u{1b}[32mup\u{1b}[0m       "), "{coloured:?}");
    }

    #[test]
    fn control_characters_in_labels_never_reach_the_terminal() {
        let mut table = Table::new(&["LABEL"]);
        table.row(["a\u{1b}[2Jb\nc".into()]);
        let text = table.render(Paint::plain());
        assert!(!text.contains('\u{1b}'));
        assert_eq!(text.lines().count(), 2);
    }
}
