//! Tables: a heading, columns as wide as they need to be, two spaces between.

use std::collections::BTreeMap;
use std::fmt;

/// How a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    /// Words below a row, by the row's number.
    notes: BTreeMap<usize, String>,
}

impl Table {
    /// With these columns.
    pub fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new(), notes: BTreeMap::new() }
    }

    /// Adds a row; it has as many cells as there are columns.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Adds words below the last row, where a column would make every line too long.
    pub fn note(&mut self, text: String) {
        if !text.is_empty() {
            self.notes.insert(self.rows.len(), text);
        }
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_string()).collect();
        let lines = || std::iter::once(&head).chain(&self.rows);
        let width = |column: usize| lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for (number, line) in lines().enumerate() {
            let mut text = String::new();
            for ((cell, width), (_, align)) in line.iter().zip(&widths).zip(&self.columns) {
                let cell = match align {
                    Align::Left => format!("{cell:<width$}  "),
                    Align::Right => format!("{cell:>width$}  "),
                };
                text.push_str(&cell);
            }
            writeln!(f, "{}", text.trim_end())?;
            if let Some(note) = self.notes.get(&number) {
                writeln!(f, "    {note}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("NAME", Align::Left), ("SAT", Align::Right), ("NOTE", Align::Left)]);
        table.row(vec!["a".into(), "1,000".into(), String::new()]);
        table.note("because".into());
        table.row(vec!["longer".into(), "7".into(), "x".into()]);
        assert_eq!(table.to_string(), "NAME      SAT  NOTE\na       1,000\n    because\nlonger      7  x\n");
    }
}
