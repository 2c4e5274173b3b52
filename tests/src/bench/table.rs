//! Tables, for a terminal and as Markdown.

use std::fmt;

/// A table whose first column says what the row is.
#[derive(Clone, Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows; `title` heads the first column.
    pub fn new(title: &str, columns: &[&str]) -> Self {
        let head = std::iter::once(title).chain(columns.iter().copied()).map(Into::into).collect();
        Self { head, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, name: &str, cells: Vec<String>) {
        self.rows.push(std::iter::once(name.to_owned()).chain(cells).collect());
    }

    /// As Markdown; columns of figures are set to the right.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut rule = vec!["---".to_owned()];
        rule.resize(self.head.len(), "---:".to_owned());
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        line(&self.head) + &line(&rule) + &rows
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let wide = |column: usize| {
            lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
        };
        for line in lines() {
            for (column, cell) in line.iter().enumerate() {
                let width = wide(column).unwrap_or(0);
                if column == 0 {
                    write!(f, "{cell:<width$}")?;
                } else {
                    write!(f, "  {cell:>width$}")?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
