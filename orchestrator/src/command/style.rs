//! The style of text: colour on a terminal, and a width everywhere. Pure. Must never express
//! anything by colour alone.

use interfaces::orchestrator::{FunctionState, ModuleState, State, TargetState};

/// The style of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    colour: bool,
    columns: usize,
}

/// The meaning of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// The good state.
    Good,
    /// A state that should change soon.
    Pending,
    /// A state that needs attention.
    Bad,
    /// No particular meaning.
    Plain,
}

impl Style {
    /// Creates a style with or without colour.
    #[must_use]
    pub fn of(colour: bool, columns: usize) -> Self {
        Self { colour, columns }
    }

    /// Creates a style without colour and with 80 columns.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            colour: false,
            columns: 80,
        }
    }

    /// Paints a word in its tone.
    #[must_use]
    pub fn paint(&self, tone: Tone, word: &str) -> String {
        let code = match tone {
            _ if !self.colour => return word.to_owned(),
            Tone::Good => 32,
            Tone::Pending => 33,
            Tone::Bad => 31,
            Tone::Plain => return word.to_owned(),
        };
        format!("\x1b[{code}m{word}\x1b[0m")
    }

    /// Wraps text into lines that fit, with `first` before the first line and `rest` before the
    /// others.
    #[must_use]
    pub fn wrap(&self, first: &str, rest: &str, text: &str) -> String {
        let options = textwrap::Options::new(self.columns)
            .initial_indent(first)
            .subsequent_indent(rest)
            .break_words(false)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        format!("{}\n", textwrap::fill(text, options))
    }

    /// Renders a table whose columns are as wide as their cells. The last cell of a row may be
    /// longer than the width, and is not wrapped.
    #[must_use]
    pub fn table(&self, rows: &[Vec<Cell>]) -> String {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.text.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in rows {
            let mut line = String::new();
            let mut end = String::new();
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = if at == 0 { "" } else { "  " };
                line.push_str(&end);
                line.push_str(gap);
                line.push_str(&self.paint(cell.tone, &cell.text));
                end = " ".repeat(width.saturating_sub(cell.text.chars().count()));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Reduces text to the characters of the locale: all of them, or only those of ASCII.
#[must_use]
pub fn encode(text: String, ascii: bool) -> String {
    if !ascii || text.is_ascii() {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            'µ' | 'μ' => plain.push('u'),
            '→' => plain.push_str("->"),
            '…' => plain.push_str("..."),
            other if other.is_ascii() => plain.push(other),
            _ => plain.push('?'),
        }
    }
    plain
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The text.
    pub text: String,
    /// The meaning of the text.
    pub tone: Tone,
}

impl Cell {
    /// Creates a cell without a particular meaning.
    #[must_use]
    pub fn plain(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            tone: Tone::Plain,
        }
    }

    /// Creates a cell with a tone.
    #[must_use]
    pub fn new((text, tone): (&str, Tone)) -> Self {
        Self {
            text: text.to_owned(),
            tone,
        }
    }
}

/// Returns the word for a device's state, and its tone.
#[must_use]
pub fn state(state: State) -> (&'static str, Tone) {
    match state {
        State::Registered => ("registered", Tone::Pending),
        State::Ready => ("ready", Tone::Good),
        State::Unmanaged => ("unmanaged", Tone::Plain),
        State::Moved => ("moved", Tone::Plain),
    }
}

/// Returns the word for a function's state, and its tone.
#[must_use]
pub fn function_state(state: FunctionState) -> (&'static str, Tone) {
    match state {
        FunctionState::Capable => ("capable", Tone::Pending),
        FunctionState::Personality => ("personality", Tone::Pending),
        FunctionState::Stuck => ("stuck", Tone::Bad),
        FunctionState::Excluded => ("excluded", Tone::Plain),
        FunctionState::Assigned => ("assigned", Tone::Plain),
    }
}

/// Returns the words for a module's state, and their tone.
#[must_use]
pub fn module_state(state: ModuleState) -> (&'static str, Tone) {
    match state {
        ModuleState::Pending => ("pending", Tone::Pending),
        ModuleState::Live => ("live", Tone::Good),
        ModuleState::Missing => ("not shipped", Tone::Plain),
        ModuleState::Unknown => ("not known", Tone::Pending),
        ModuleState::Excluded => ("excluded", Tone::Plain),
        ModuleState::Denied => ("denied", Tone::Bad),
        ModuleState::Failed => ("failed", Tone::Bad),
        ModuleState::Unloaded => ("unloaded", Tone::Pending),
    }
}

/// Returns the words for a target's state, and their tone.
#[must_use]
pub fn target_state(state: TargetState) -> (&'static str, Tone) {
    match state {
        TargetState::Waiting => ("waiting", Tone::Plain),
        TargetState::Unknown => ("not known", Tone::Pending),
        TargetState::Inactive => ("inactive", Tone::Pending),
        TargetState::Starting => ("starting", Tone::Pending),
        TargetState::Active => ("active", Tone::Good),
        TargetState::Stopping => ("stopping", Tone::Pending),
        TargetState::Failed => ("failed", Tone::Bad),
        TargetState::Refused => ("refused", Tone::Bad),
        TargetState::Masked => ("masked", Tone::Plain),
    }
}
