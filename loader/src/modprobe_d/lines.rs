//! Lines, indexed by the names that their patterns match. Pure. Must never change the order in
//! which they were written.

use std::collections::HashMap;

use crate::alias;

/// Lines with a pattern, in order, with an index that avoids a search through all of them: most
/// patterns are plain names.
#[derive(Clone, Debug)]
pub struct Lines<T> {
    lines: Vec<T>,
    by_name: HashMap<Vec<u8>, Vec<usize>>,
    /// The patterns with a wildcard, and the positions of their lines.
    wild: Vec<(Vec<u8>, usize)>,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self {
            lines: Vec::new(),
            by_name: HashMap::new(),
            wild: Vec::new(),
        }
    }
}

impl<T> Lines<T> {
    /// Adds a line.
    pub fn push(&mut self, pattern: &[u8], line: T) {
        let at = self.lines.len();
        self.lines.push(line);
        if is_plain(pattern) {
            self.by_name.entry(pattern.to_vec()).or_default().push(at);
        } else {
            self.wild.push((pattern.to_vec(), at));
        }
    }

    /// Returns the lines whose pattern matches `name`, in order.
    pub fn matching(&self, name: &[u8]) -> impl Iterator<Item = &T> {
        let plain = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        let mut plain = plain.iter().copied().peekable();
        let wild = self.wild.iter();
        let wild = wild.filter(move |(pattern, _)| alias::matches(pattern, name));
        let mut wild = wild.map(|(_, at)| *at).peekable();
        std::iter::from_fn(move || {
            let next = match (plain.peek(), wild.peek()) {
                (Some(p), Some(w)) if w < p => wild.next(),
                (None, _) => wild.next(),
                (Some(_), _) => plain.next(),
            };
            self.lines.get(next?)
        })
    }

    /// Returns the lines that were written for exactly this pattern, in order.
    pub fn written_for(&self, pattern: &[u8]) -> impl Iterator<Item = &T> {
        let plain = self.by_name.get(pattern).map_or(&[][..], Vec::as_slice);
        let wild = self
            .wild
            .iter()
            .filter(move |(written, _)| written == pattern);
        let positions = plain.iter().copied().chain(wild.map(|(_, at)| *at));
        positions.filter_map(|at| self.lines.get(at))
    }
}

/// Returns true if a pattern matches nothing but itself.
fn is_plain(pattern: &[u8]) -> bool {
    let special = |byte: &u8| alias::is_wildcard(*byte) || *byte == b'\\';
    !pattern.iter().any(special)
}
