//! The tables of a rules file, with the lines of their keys and values. Pure. Must never ignore a
//! key that no caller requests: a typo would change the meaning of a rule.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::RulesError;

/// The maximum number of changes between a typo and the word that is suggested.
const MAX_TYPOS: usize = 3;

/// A file, with the text for line numbers in errors.
#[derive(Clone, Copy)]
pub(super) struct File<'t> {
    pub path: &'t Path,
    pub text: &'t str,
}

/// A table that has only known keys.
pub(super) struct Table<'t> {
    file: File<'t>,
    at: Range<usize>,
    entries: &'t DeTable<'t>,
}

/// A string or number of a file.
pub(super) struct Text<'t> {
    file: File<'t>,
    at: Range<usize>,
    /// The text of the value.
    pub text: &'t str,
}

impl<'t> File<'t> {
    /// Parses the whole file.
    pub fn document(self) -> Result<Spanned<DeValue<'t>>, RulesError> {
        match DeTable::parse(self.text) {
            Ok(table) => Ok(Spanned::new(
                table.span(),
                DeValue::Table(table.into_inner()),
            )),
            Err(error) => {
                let line = error.span().map(|span| self.line(&span));
                let message = error.message().trim_end().replace('\n', "; ");
                Err(RulesError::new(self.path, line, message))
            }
        }
    }

    /// Returns a table whose keys must be in `known`.
    pub fn table(
        self,
        value: &'t Spanned<DeValue<'t>>,
        known: &[&str],
    ) -> Result<Table<'t>, RulesError> {
        let Some(entries) = value.get_ref().as_table() else {
            let message = format!("expected a table, found {}", kind(value.get_ref()));
            return Err(self.error(&value.span(), message));
        };
        let mut keys: Vec<_> = entries.keys().collect();
        keys.sort_by_key(|key| key.span().start);
        if let Some(key) = keys
            .into_iter()
            .find(|key| !known.contains(&&**key.get_ref()))
        {
            let name = key.get_ref();
            let hint = gone(name)
                .map(str::to_owned)
                .or_else(|| nearest(name, known).map(str::to_owned));
            let message = match hint {
                Some(_) => format!("unknown key '{name}'"),
                None => format!("unknown key '{name}'; known here: {}", known.join(", ")),
            };
            return Err(self.error(&key.span(), message).with_hint(hint));
        }
        Ok(Table {
            file: self,
            at: value.span(),
            entries,
        })
    }

    fn error(&self, at: &Range<usize>, message: impl Into<String>) -> RulesError {
        RulesError::new(self.path, Some(self.line(at)), message)
    }

    fn line(&self, at: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..at.start).unwrap_or_default();
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }
}

impl<'t> Table<'t> {
    /// Returns the first line of the table, from 1.
    pub fn line(&self) -> usize {
        self.file.line(&self.at)
    }

    /// Returns an error of the table as a whole.
    pub fn error(&self, message: impl Into<String>) -> RulesError {
        self.file.error(&self.at, message)
    }

    fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.entries.get(key)
    }

    /// Returns the tables `[[key]]`.
    pub fn tables(&self, key: &str) -> Result<Vec<&'t Spanned<DeValue<'t>>>, RulesError> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let all = match value.get_ref() {
            DeValue::Array(values) => values.iter().collect(),
            DeValue::Table(_) => {
                let message = format!("[{key}] is a single table; write [[{key}]]");
                return Err(self.file.error(&value.span(), message));
            }
            _ => Vec::new(),
        };
        match all.iter().all(|value| value.get_ref().is_table()) && !all.is_empty() {
            true => Ok(all),
            false => {
                let message = format!("'{key}' is not a key with a value; write [[{key}]]");
                Err(self.file.error(&value.span(), message))
            }
        }
    }

    /// Returns the table below `key`, whose keys must be in `known`.
    pub fn table(&self, key: &str, known: &[&str]) -> Result<Option<Table<'t>>, RulesError> {
        let table = self.get(key).map(|value| match value.get_ref() {
            DeValue::Table(_) => self.file.table(value, known),
            other => {
                let message = format!(
                    "'{key}' is a table, not {}; write {key}.name = [\"...\"]",
                    kind(other)
                );
                Err(self.file.error(&value.span(), message))
            }
        });
        table.transpose()
    }

    /// Returns a boolean.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, RulesError> {
        let boolean = |value: &'t Spanned<DeValue<'t>>| match value.get_ref() {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(self.mismatch(key, value, "true or false", other)),
        };
        self.get(key).map(boolean).transpose()
    }

    /// Returns a string.
    pub fn text(&self, key: &str) -> Result<Option<Text<'t>>, RulesError> {
        let text = |value: &'t Spanned<DeValue<'t>>| match value.get_ref() {
            DeValue::String(text) => Ok(self.of(value, text)),
            other => Err(self.mismatch(key, value, "a string", other)),
        };
        self.get(key).map(text).transpose()
    }

    /// Returns an array of strings. An empty array is an error.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<Text<'t>>>, RulesError> {
        self.not_empty(key, self.strings(key)?)
    }

    /// Returns an array of strings, which may be empty or missing.
    pub fn some_texts(&self, key: &str) -> Result<Vec<Text<'t>>, RulesError> {
        Ok(self.strings(key)?.unwrap_or_default())
    }

    fn strings(&self, key: &str) -> Result<Option<Vec<Text<'t>>>, RulesError> {
        self.array(key, "strings", |value| match value.get_ref() {
            DeValue::String(text) => Some(self.of(value, text)),
            _ => None,
        })
    }

    /// Returns an array of numbers and strings, as they are written. An empty array is an error.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<Text<'t>>>, RulesError> {
        let numbers = self.array(key, "numbers or strings", |value| match value.get_ref() {
            DeValue::Integer(number) => Some(self.of(value, number.as_str())),
            DeValue::String(text) => Some(self.of(value, text)),
            _ => None,
        })?;
        self.not_empty(key, numbers)
    }

    fn array(
        &self,
        key: &str,
        what: &str,
        of: impl Fn(&'t Spanned<DeValue<'t>>) -> Option<Text<'t>>,
    ) -> Result<Option<Vec<Text<'t>>>, RulesError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let what = format!("an array of {what}");
        let DeValue::Array(values) = value.get_ref() else {
            return Err(self.mismatch(key, value, &what, value.get_ref()));
        };
        let texts = values.iter().map(|value| {
            let text = of(value);
            text.ok_or_else(|| self.mismatch(key, value, &what, value.get_ref()))
        });
        texts.collect::<Result<_, _>>().map(Some)
    }

    fn not_empty(
        &self,
        key: &str,
        values: Option<Vec<Text<'t>>>,
    ) -> Result<Option<Vec<Text<'t>>>, RulesError> {
        match (&values, self.get(key)) {
            (Some(none), Some(value)) if none.is_empty() => {
                let message = format!("{key} is empty: the rule can never select anything");
                Err(self.file.error(&value.span(), message))
            }
            _ => Ok(values),
        }
    }

    fn of(&self, value: &Spanned<DeValue<'t>>, text: &'t str) -> Text<'t> {
        Text {
            file: self.file,
            at: value.span(),
            text,
        }
    }

    fn mismatch(
        &self,
        key: &str,
        at: &Spanned<DeValue<'_>>,
        what: &str,
        found: &DeValue<'_>,
    ) -> RulesError {
        let message = match (found, what.starts_with("an array")) {
            (DeValue::String(text), true) => {
                format!("{key} takes {what}; write {key} = [{text:?}]")
            }
            _ => format!("{key} takes {what}, not {}", kind(found)),
        };
        self.file.error(&at.span(), message)
    }
}

impl Text<'_> {
    /// Returns an error of this value.
    pub fn error(&self, message: impl Into<String>) -> RulesError {
        self.file.error(&self.at, message)
    }
}

/// Returns the name of the value's type.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Returns the replacement for a key that was removed from the format.
fn gone(key: &str) -> Option<&'static str> {
    matches!(key, "units" | "while_active")
        .then_some("roles, with the unit attached to rdma-role@ROLE.target by WantedBy=")
}

/// Returns the nearest known word, if it is near enough to be suggested.
pub(super) fn nearest<'k>(found: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |word: &str| strsim::damerau_levenshtein(found, word);
    let near = known.iter().min_by_key(|word| distance(word))?;
    // Every other word is near to a very short one.
    let most = MAX_TYPOS.min(found.chars().count().saturating_sub(1));
    (distance(near) <= most).then_some(near)
}
