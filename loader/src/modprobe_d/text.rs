//! The splitting of text as kmod does it: into logical lines, words, names and soft dependencies.
//! Pure. Must never be cleverer than kmod.

use super::Softdep;

/// Replaces `-` with `_`, except within brackets. Returns `None` if brackets do not match.
#[must_use]
pub fn underscored(name: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len());
    let mut in_brackets = false;
    for &byte in name {
        match byte {
            b']' if !in_brackets => return None,
            b']' => in_brackets = false,
            b'[' => in_brackets = true,
            _ => {}
        }
        out.push(if byte == b'-' && !in_brackets {
            b'_'
        } else {
            byte
        });
    }
    (!in_brackets).then_some(out)
}

/// Logical lines, as `freadline_wrapped()` in kmod's `shared/util.c` reads them.
pub struct LogicalLines<'t> {
    text: &'t [u8],
    /// The number of the last physical line of the last logical line.
    number: usize,
}

impl<'t> LogicalLines<'t> {
    /// Starts at the first line of a file.
    pub fn of(text: &'t [u8]) -> Self {
        Self { text, number: 0 }
    }

    /// Returns the number of the last physical line of the last logical line, from 1.
    pub fn number(&self) -> usize {
        self.number
    }
}

impl Iterator for LogicalLines<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            let Some((&byte, rest)) = self.text.split_first() else {
                if line.is_empty() {
                    return None;
                }
                break;
            };
            self.text = rest;
            match byte {
                b'\n' => break,
                // A backslash joins two lines, or is dropped.
                b'\\' => {
                    if let Some((&escaped, rest)) = self.text.split_first() {
                        self.text = rest;
                        if escaped == b'\n' {
                            self.number += 1;
                        } else {
                            line.push(escaped);
                        }
                    }
                }
                _ => line.push(byte),
            }
        }
        self.number += 1;
        // In C, a NUL ends the string.
        if let Some(nul) = line.iter().position(|&byte| byte == 0) {
            line.truncate(nul);
        }
        Some(line)
    }
}

/// Words, as `strtok_r(3)` splits them at blanks and tabs.
pub struct Words<'l>(&'l [u8]);

impl<'l> Words<'l> {
    /// Starts at the first word of a line.
    pub fn of(line: &'l [u8]) -> Self {
        Self(line)
    }

    /// Returns the next word.
    pub fn next(&mut self) -> Option<&'l [u8]> {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let start = self.0.iter().position(|byte| !is_blank(byte))?;
        let from = self.0.get(start..)?;
        let len = from.iter().position(is_blank).unwrap_or(from.len());
        // One blank is consumed with the word before it. Further blanks belong to the rest.
        self.0 = from.get(len + 1..).unwrap_or_default();
        from.get(..len)
    }

    /// Returns the rest of the line, or `None` if it is empty.
    pub fn rest(&self) -> Option<&'l [u8]> {
        (!self.0.is_empty()).then_some(self.0)
    }
}

/// The list that the words of a softdep line are added to.
#[derive(Clone, Copy)]
enum List {
    None,
    Pre,
    Post,
}

/// Splits the words as `kmod_config_add_softdep()` does: a blank before the first word becomes part
/// of it, so that it is not recognised as `pre:`.
pub fn softdep(text: &[u8]) -> Softdep {
    let mut softdep = Softdep::default();
    let mut list = List::None;
    let mut start = 0;
    let mut after_blank = false;
    for (at, byte) in text.iter().copied().map(Some).chain([None]).enumerate() {
        if let Some(byte) = byte {
            if !(byte.is_ascii_whitespace() || byte == 0x0b) {
                after_blank = false;
                continue;
            }
            if std::mem::replace(&mut after_blank, true) {
                start = at + 1;
                continue;
            }
            if start >= at {
                continue;
            }
        }
        match (text.get(start..at).unwrap_or_default(), list) {
            (b"pre:", _) => list = List::Pre,
            (b"post:", _) => list = List::Post,
            _ if byte.is_none() && after_blank => {}
            (word, List::Pre) => softdep.pre.push(word.to_vec()),
            (word, List::Post) => softdep.post.push(word.to_vec()),
            (_, List::None) => {}
        }
        start = at + 1;
    }
    softdep
}
