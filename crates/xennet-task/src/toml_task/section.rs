//! Takes a TOML document apart field by field and notes all that is wrong with it, each with its line.

use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::TaskFileProblem;
use super::units::{Measure, Measured, shortened};
use crate::limits::Limits;

/// The text and what was found wrong in it so far.
#[derive(Debug)]
pub(super) struct Document<'t> {
    text: &'t str,
    pub(super) problems: Vec<TaskFileProblem>,
}

/// What to do when a field is absent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Absent<T> {
    /// It has this value.
    Is(T),
    /// It must be there; this is how it could look.
    Missing(&'static str),
}

/// A table, of which fields are taken until only unknown ones are left.
#[derive(Debug)]
pub(super) struct Section<'t> {
    /// Before the names of its fields: `requirements.`, or nothing.
    path: String,
    line: usize,
    table: &'t DeTable<'t>,
    known: Vec<&'static str>,
}

/// A field that is there.
#[derive(Debug)]
pub(super) struct Field<'t> {
    pub(super) name: String,
    pub(super) line: usize,
    value: &'t DeValue<'t>,
    /// As it stands in the file.
    pub(super) written: String,
}

impl<'t> Document<'t> {
    pub(super) fn new(text: &'t str) -> Document<'t> {
        Document { text, problems: Vec::new() }
    }

    /// Notes what is not even TOML.
    pub(super) fn syntax(&mut self, error: &toml::de::Error) {
        let line = self.line_of(error.span().map_or(0, |span| span.start));
        let written = self.text.lines().nth(line - 1).unwrap_or_default().trim();
        // A field's name stands before the first equals sign, a table's between brackets.
        let name = written.split('=').next().unwrap_or_default().trim().trim_matches(['[', ']']);
        let field = if name.is_empty() { "the file".to_owned() } else { shortened(name) };
        let problem = format!("`{}` is not TOML: {}", shortened(written), error.message());
        let remedy = "write `name = value` with texts in quotes, each name once".to_owned();
        self.problems.push(TaskFileProblem { line, field, problem, remedy });
    }

    pub(super) fn wrong(&mut self, field: &Field<'_>, problem: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(TaskFileProblem { line: field.line, field: field.name.clone(), problem: problem.into(), remedy: remedy.into() });
    }

    fn missing(&mut self, section: &Section<'_>, name: &str, example: &str) {
        self.problems.push(TaskFileProblem {
            line: section.line,
            field: format!("{}{name}", section.path),
            problem: "is missing".to_owned(),
            remedy: format!("write `{example}`"),
        });
    }

    fn line_of(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }

    fn field(&self, name: String, value: &'t Spanned<DeValue<'t>>) -> Field<'t> {
        let written = shortened(self.text.get(value.span()).unwrap_or_default());
        Field { name, line: self.line_of(value.span().start), value: value.get_ref(), written }
    }
}

impl<'t> Section<'t> {
    pub(super) fn root(table: &'t DeTable<'t>) -> Section<'t> {
        Section { path: String::new(), line: 1, table, known: Vec::new() }
    }

    /// The field of this name, if it is there.
    pub(super) fn field(&mut self, document: &Document<'t>, name: &'static str) -> Option<Field<'t>> {
        self.known.push(name);
        let value = self.table.get(name)?;
        Some(document.field(format!("{}{name}", self.path), value))
    }

    /// A field of this name that `read` makes something of. What `read` finds wrong it notes itself; the default then
    /// only stands in until the problems are reported.
    pub(super) fn read<T: Default>(
        &mut self,
        document: &mut Document<'t>,
        name: &'static str,
        absent: Absent<T>,
        read: impl FnOnce(&mut Document<'t>, &Field<'t>) -> Option<T>,
    ) -> T {
        match (self.field(document, name), absent) {
            (Some(field), _) => read(document, &field).unwrap_or_default(),
            (None, Absent::Is(value)) => value,
            (None, Absent::Missing(example)) => {
                document.missing(self, name, example);
                T::default()
            }
        }
    }

    /// An integer within limits.
    pub(super) fn integer<T: TryFrom<u64> + Default>(
        &mut self,
        document: &mut Document<'t>,
        name: &'static str,
        limits: &Limits,
        absent: Absent<T>,
    ) -> T {
        self.read(document, name, absent, |document, field| field.integer(document, limits))
    }

    /// A number with a unit within limits.
    pub(super) fn measure<T: TryFrom<u64> + Default>(
        &mut self,
        document: &mut Document<'t>,
        name: &'static str,
        measure: &Measure,
        limits: &Limits,
        absent: Absent<T>,
    ) -> T {
        self.read(document, name, absent, |document, field| {
            let measured = field.measure(document, measure, limits)?;
            if measured.negative {
                let remedy = format!("write {} without a minus, such as \"{}\"", measure.what, measure.example);
                document.wrong(field, format!("{} is negative", field.written), remedy);
                return None;
            }
            T::try_from(measured.amount).ok()
        })
    }

    /// A table within it, if it is there.
    pub(super) fn section(&mut self, document: &mut Document<'t>, name: &'static str) -> Option<Section<'t>> {
        let field = self.field(document, name)?;
        field.section(document, &format!("a table: write `[{}]` and its fields below", field.name))
    }

    /// A table within it; notes if it is missing.
    pub(super) fn needed_section(&mut self, document: &mut Document<'t>, name: &'static str, example: &str) -> Option<Section<'t>> {
        if !self.table.contains_key(name) {
            document.missing(self, name, example);
        }
        self.section(document, name)
    }

    /// Notes all fields that nothing asked for.
    pub(super) fn finish(self, document: &mut Document<'t>) {
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let known = self.known.join(", ");
            let remedy = match self.known.iter().min_by_key(|known| distance(known, name)) {
                Some(near) if distance(near, name) <= 3 => {
                    format!("did you mean `{near}`? Known here: {known}")
                }
                _ => format!("remove it; known here: {known}"),
            };
            document.problems.push(TaskFileProblem {
                line: document.line_of(key.span().start),
                field: format!("{}{}", self.path, shortened(name)),
                problem: "is unknown".to_owned(),
                remedy,
            });
        }
    }
}

impl<'t> Field<'t> {
    /// As a table.
    pub(super) fn section(&self, document: &mut Document<'t>, should_be: &str) -> Option<Section<'t>> {
        match self.value.as_table() {
            Some(table) => Some(Section { path: format!("{}.", self.name), line: self.line, table, known: Vec::new() }),
            None => {
                self.not(document, should_be);
                None
            }
        }
    }

    /// As a list, with the number of each element in its name, from 1 on.
    pub(super) fn list(&self, document: &mut Document<'t>, should_be: &str) -> Option<Vec<Field<'t>>> {
        let Some(array) = self.value.as_array() else {
            self.not(document, should_be);
            return None;
        };
        let elements = array.iter().enumerate();
        Some(elements.map(|(i, value)| document.field(format!("{}[{}]", self.name, i + 1), value)).collect())
    }

    /// As text.
    pub(super) fn text(&self, document: &mut Document<'t>, should_be: &str) -> Option<&'t str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.not(document, should_be);
        }
        text
    }

    /// As text that can be read as a `T`.
    pub(super) fn parsed<T: FromStr>(&self, document: &mut Document<'t>, should_be: &str) -> Option<T> {
        let text = self.text(document, should_be)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.not(document, should_be);
        }
        parsed
    }

    /// As an integer within limits.
    pub(super) fn integer<T: TryFrom<u64>>(&self, document: &mut Document<'t>, limits: &Limits) -> Option<T> {
        let should_be = format!("an integer from {} to {}", limits.min, limits.max);
        let Some(integer) = self.value.as_integer() else {
            self.not(document, &should_be);
            return None;
        };
        let value = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let value = value.filter(|value| limits.check(*value).is_ok()).and_then(|value| T::try_from(value).ok());
        if value.is_none() {
            self.not(document, &should_be);
        }
        value
    }

    /// As a number with a unit, of which the amount lies within limits.
    pub(super) fn measure(&self, document: &mut Document<'t>, measure: &Measure, limits: &Limits) -> Option<Measured> {
        let should_be = format!("{} with its unit in quotes, such as \"{}\"", measure.what, measure.example);
        let text = self.text(document, &should_be)?;
        let measured = match measure.read(text) {
            Ok(measured) => measured,
            Err(problem) => {
                let remedy = format!("write {} in {}, such as \"{}\"", measure.what, measure.unit_names(), measure.example);
                document.wrong(self, format!("{} {problem}", self.written), remedy);
                return None;
            }
        };
        if limits.check(measured.amount).is_err() {
            let problem = format!("{} is {} {}", self.written, measured.amount, measure.base);
            document.wrong(self, problem, format!("it must be from {} to {} {}", limits.min, limits.max, measure.base));
            return None;
        }
        Some(measured)
    }

    /// Notes that it is not what it should be.
    pub(super) fn not(&self, document: &mut Document<'t>, should_be: &str) {
        let problem = match self.value {
            DeValue::Table(_) => "is a table".to_owned(),
            _ => format!("is {}", self.written),
        };
        document.wrong(self, problem, format!("it must be {should_be}"));
    }
}

/// How many letters must change to make one name of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    // Names this long are no misspelling, and comparing them would take long.
    if b.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
