//! A table of the configuration file, taken apart field by field, so that every error can name line, field and value.

use std::ops::RangeInclusive;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{ConfigError, FieldProblem, Origin};

/// What a log filter looks like.
pub(super) const LOG_HINT: &str = "write one of error, warn, info, debug, trace, or for example info,xennetd=debug";

/// The text errors point into.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn origin(&self, offset: usize) -> Origin {
        let before = self.text.get(..offset).unwrap_or(self.text);
        Origin::Line { path: self.path.to_path_buf(), line: 1 + before.matches('\n').count() }
    }
}

/// One table, with the fields asked of it so far.
pub(super) struct Section<'a> {
    source: Source<'a>,
    name: String,
    table: DeTable<'a>,
    /// Where in the text.
    begins: usize,
    known: Vec<&'static str>,
}

/// A value that was found, with all that an error about it needs.
pub(super) struct Field<'a> {
    source: Source<'a>,
    name: String,
    value: Spanned<DeValue<'a>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(source: Source<'a>) -> Result<Section<'a>, ConfigError> {
        let table = DeTable::parse(source.text).map_err(|e| {
            let offset = e.span().map_or(0, |span| span.start);
            let origin = source.origin(offset);
            FieldProblem {
                origin,
                field: None,
                value: line_at(source.text, offset),
                problem: e.message().to_string(),
                remedy: "write `name = value` under a [section]; text goes in \"quotes\"".into(),
            }
        })?;
        Ok(Section { source, name: String::new(), table: table.into_inner(), begins: 0, known: Vec::new() })
    }

    /// Takes a field out; `None` if the file does not have it.
    pub(super) fn field(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        Some(Field { source: self.source, name: self.path(key), value })
    }

    /// Takes a subsection out; `None` if the file does not have it.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Option<Section<'a>>, ConfigError> {
        let Some(field) = self.field(key) else { return Ok(None) };
        let hint = format!("begin a section with a line [{}]", field.name);
        if !field.value.get_ref().is_table() {
            return Err(field.wrong("it must be a section", &hint));
        }
        let begins = field.value.span().start;
        let DeValue::Table(table) = field.value.into_inner() else {
            return Ok(None);
        };
        Ok(Some(Section { source: self.source, name: field.name, table, begins, known: Vec::new() }))
    }

    /// All that is left, for a section whose fields another crate defines.
    pub(super) fn rest(self) -> Vec<(String, Field<'a>)> {
        let Section { source, name, table, .. } = self;
        let rest = table.into_iter().map(|(key, value)| {
            let key = key.into_inner().into_owned();
            let name = format!("{name}.{key}");
            (key, Field { source, name, value })
        });
        rest.collect()
    }

    /// Refuses what nobody asked for.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        let Some((key, _)) = self.table.iter().next() else { return Ok(()) };
        let place = if self.name.is_empty() { "at the top".to_string() } else { format!("in [{}]", self.name) };
        Err(ConfigError::from(FieldProblem {
            origin: self.source.origin(key.span().start),
            field: Some(self.path(key.get_ref())),
            value: None,
            problem: "there is no such field".into(),
            remedy: format!("{place} there may be: {}", self.known.join(", ")),
        }))
    }

    /// An error about the section as a whole, where a field is missing beside `key`.
    pub(super) fn wrong(&self, key: &str, problem: &str, remedy: &str) -> ConfigError {
        let origin = self.source.origin(self.begins);
        ConfigError::from(FieldProblem { origin, field: Some(self.path(key)), value: None, problem: problem.into(), remedy: remedy.into() })
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_string() } else { format!("{}.{key}", self.name) }
    }
}

impl<'a> Field<'a> {
    /// An error about this field.
    pub(super) fn wrong(&self, problem: impl Into<String>, remedy: &str) -> ConfigError {
        let span = self.value.span();
        ConfigError::from(FieldProblem {
            origin: self.source.origin(span.start),
            field: Some(self.name.clone()),
            value: self.source.text.get(span).map(shortened),
            problem: problem.into(),
            remedy: remedy.into(),
        })
    }

    /// The value as a `T`; `hint` says what would be right.
    pub(super) fn value<T: Deserialize<'a>>(&self, hint: &str) -> Result<T, ConfigError> {
        let deserializer = ValueDeserializer::from(self.value.clone());
        T::deserialize(deserializer).map_err(|e| self.wrong(e.message(), hint))
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, bounds: RangeInclusive<u64>, what: &str) -> Result<u64, ConfigError> {
        let hint = format!("write {what}, {} to {}", bounds.start(), bounds.end());
        let number: u64 = self.value(&hint)?;
        if !bounds.contains(&number) {
            return Err(self.wrong("it is out of bounds", &hint));
        }
        Ok(number)
    }

    /// A text that parses into a `T`.
    pub(super) fn parsed<T>(&self, hint: &str) -> Result<T, ConfigError>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        let text: String = self.value(hint)?;
        text.parse().map_err(|e| self.wrong(sentence(&e), hint))
    }

    /// A list of texts that each parse into a `T`.
    pub(super) fn parsed_list<T>(&self, hint: &str) -> Result<Vec<T>, ConfigError>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        let texts: Vec<String> = self.value(hint)?;
        texts.iter().map(|text| text.parse().map_err(|e| self.wrong(format!("\"{text}\": {e}"), hint))).collect()
    }
}

/// A log filter that can be understood.
pub(super) fn check_log(filter: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(filter) {
        Ok(_) => Ok(filter.to_string()),
        Err(e) => Err(sentence(&e)),
    }
}

fn sentence(error: &impl std::fmt::Display) -> String {
    format!("it cannot be read ({error})")
}

fn line_at(text: &str, offset: usize) -> Option<String> {
    let start = text.get(..offset)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(start..)?.lines().next()?.trim();
    (!line.is_empty()).then(|| shortened(line))
}

fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    if text.chars().count() <= MOST {
        return text.to_string();
    }
    text.chars().take(MOST).chain(['…']).collect()
}
