//! The error of a rules file or list. Pure. Must never lose the file or the line.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// An error in a rules file or list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct RulesError {
    file: PathBuf,
    /// The line of the error, from 1, if there is one.
    line: Option<usize>,
    message: String,
    hint: Option<String>,
    /// True if the last good version of the file stays in use.
    kept: bool,
    /// The file of the same name in a later directory, if that is in use instead.
    #[serde(default)]
    instead: Option<PathBuf>,
}

impl RulesError {
    pub(super) fn new(file: &Path, line: Option<usize>, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line,
            message: message.into(),
            hint: None,
            kept: false,
            instead: None,
        }
    }

    pub(super) fn with_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    pub(super) fn unreadable(file: &Path, why: &str) -> Self {
        Self::new(file, None, why)
    }

    pub(super) fn with_kept(mut self, kept: bool) -> Self {
        self.kept = kept;
        self
    }

    /// Records the file that is in use instead of this one.
    pub(super) fn is_replaced_by(&mut self, path: &Path) {
        if self.file != path {
            self.instead = Some(path.to_owned());
        }
    }

    /// Returns the file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the line of the error, from 1, if there is one.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "; did you mean {hint}?")?;
        }
        if self.kept {
            f.write_str(" (its last good version stays in use)")?;
        }
        if let Some(instead) = &self.instead {
            write!(f, " ({} is in use instead)", instead.display())?;
        }
        Ok(())
    }
}
