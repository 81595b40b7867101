//! The patterns for names, as in udev's rules (`glob(7)`): `*`, `?`, and `[...]` for one character
//! of a set. Pure. Must never accept a pattern that can never match its property: a rule that
//! excludes devices from management would exclude none.

use std::collections::BTreeSet;
use std::fmt;

/// The maximum length of a pattern, in characters: more than that of any name in the kernel.
const MAX_LEN: usize = 255;

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

/// A part of a pattern: one character of a set, or any number of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    set: Set,
    repeats: bool,
}

/// A set of characters, as ranges that include both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Set(Vec<(char, char)>);

/// An error in a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The text is longer than [`MAX_LEN`].
    #[error("it has more than {MAX_LEN} characters")]
    TooLong,
    /// A set has no end.
    #[error("a '[' without its ']'")]
    Unclosed,
    /// A range of a set runs backwards.
    #[error("the range {0}-{1} is empty")]
    Backwards(char, char),
    /// The text has the separator of alternatives in udev's rules.
    #[error("'|' separates nothing here: write each name as a string of its own")]
    Alternatives,
    /// The text has an escape.
    #[error("there are no escapes: write [*] for the character '*'")]
    Escape,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Fails if the text is not a valid pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.chars().count() > MAX_LEN {
            return Err(PatternError::TooLong);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            parts.push(match first {
                '*' => Part::any(true),
                '?' => Part::any(false),
                '|' => return Err(PatternError::Alternatives),
                '\\' => return Err(PatternError::Escape),
                '[' => {
                    let (set, after) = Set::parse(rest)?;
                    rest = after;
                    Part {
                        set,
                        repeats: false,
                    }
                }
                literal => Part::literal(literal),
            });
        }
        let text = text.to_owned();
        Ok(Self { text, parts })
    }

    /// Returns the pattern of all names in the kernel: any characters except a slash and control
    /// characters.
    #[must_use]
    pub fn of_names() -> Self {
        let none = Set(vec![('\0', '\u{1f}'), ('/', '/'), ('\u{7f}', '\u{9f}')]);
        let part = Part {
            set: none.others(),
            repeats: true,
        };
        Self {
            text: "*".to_owned(),
            parts: vec![part],
        }
    }

    /// Returns true if the whole of `value` matches.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        let value: Vec<Part> = value.chars().map(Part::literal).collect();
        meet(&self.parts, &value)
    }

    /// Returns true if a text exists that matches both patterns.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        meet(&self.parts, &other.parts)
    }

    /// Returns the minimum length of a matching text, in characters.
    #[must_use]
    pub fn shortest(&self) -> usize {
        self.parts.iter().filter(|part| !part.repeats).count()
    }

    /// Returns the text of the pattern, if no other text matches.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        (!self.text.contains(['*', '?', '['])).then_some(&self.text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Part {
    fn any(repeats: bool) -> Self {
        let set = Set(vec![(char::MIN, char::MAX)]);
        Self { set, repeats }
    }

    fn literal(character: char) -> Self {
        Self {
            set: Set(vec![(character, character)]),
            repeats: false,
        }
    }
}

impl Set {
    /// Parses the text behind a `[`, and returns the text behind its `]`, too. As in `glob(7)`, a
    /// `]` at the beginning and a `-` at either end are literal, and `!` negates the set; so does
    /// `^`, as in a regular expression.
    fn parse(text: &str) -> Result<(Self, &str), PatternError> {
        let (negated, body) = match text.strip_prefix(['!', '^']) {
            Some(body) => (true, body),
            None => (false, text),
        };
        let end = body.char_indices().skip(1).find(|(_, c)| *c == ']');
        let (end, _) = end.ok_or(PatternError::Unclosed)?;
        let (inside, after) = body.split_at(end);
        let mut ranges = Vec::new();
        let mut rest: Vec<char> = inside.chars().rev().collect();
        while let Some(first) = rest.pop() {
            let last = match rest.as_slice() {
                [.., last, '-'] => *last,
                _ => {
                    ranges.push((first, first));
                    continue;
                }
            };
            rest.truncate(rest.len().saturating_sub(2));
            if first > last {
                return Err(PatternError::Backwards(first, last));
            }
            ranges.push((first, last));
        }
        let set = Self(ranges);
        let set = if negated { set.others() } else { set };
        Ok((set, after.strip_prefix(']').unwrap_or(after)))
    }

    /// Returns the set of all other characters.
    fn others(mut self) -> Self {
        self.0.sort_unstable();
        let mut others = Vec::new();
        let mut next = Some(char::MIN);
        for (first, last) in self.0 {
            let Some(from) = next else { break };
            if from < first {
                let before = (char::MIN..first).next_back();
                others.extend(before.map(|before| (from, before)));
            }
            next = next.max((last..=char::MAX).nth(1));
            if last == char::MAX {
                next = None;
            }
        }
        others.extend(next.map(|from| (from, char::MAX)));
        Self(others)
    }

    fn meets(&self, other: &Self) -> bool {
        self.0.iter().any(|(first, last)| {
            let mut others = other.0.iter();
            others.any(|(from, to)| first <= to && from <= last)
        })
    }
}

/// Returns true if a text exists that matches both: a search over the positions in both patterns.
/// The number of steps is at most the product of their lengths.
fn meet(one: &[Part], other: &[Part]) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![(0, 0)];
    while let Some((i, j)) = open.pop() {
        if !seen.insert((i, j)) {
            continue;
        }
        let (a, b) = (one.get(i), other.get(j));
        if a.is_none() && b.is_none() {
            return true;
        }
        // A part that repeats may also end here.
        if a.is_some_and(|a| a.repeats) {
            open.push((i + 1, j));
        }
        if b.is_some_and(|b| b.repeats) {
            open.push((i, j + 1));
        }
        if let (Some(a), Some(b)) = (a, b)
            && a.set.meets(&b.set)
        {
            open.push((i + usize::from(!a.repeats), j + usize::from(!b.repeats)));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn a_pattern_matches_only_the_whole_value() {
        for (text, value, matches) in [
            ("mlx5_0", "mlx5_0", true),
            ("mlx5_0", "mlx5_01", false),
            ("mlx5_*", "mlx5_", true),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("mlx5_[0-3]", "mlx5_2", true),
            ("mlx5_[0-3]", "mlx5_4", false),
            ("mlx5_[!0-3]", "mlx5_4", true),
            ("mlx5_[^0-3]", "mlx5_3", false),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("[*]", "*", true),
            ("[*]", "a", false),
            ("[!a]", "\u{10ffff}", true),
            ("é?", "éü", true),
            ("MLX5_0", "mlx5_0", false),
        ] {
            assert_eq!(pattern(text).matches(value), matches, "{text} {value}");
        }
    }

    #[test]
    fn an_invalid_pattern_is_refused_with_the_reason() {
        for (text, error) in [
            ("", "it is empty"),
            ("a[", "a '[' without its ']'"),
            ("[]", "a '[' without its ']'"),
            ("[9-0]", "the range 9-0 is empty"),
            (
                "a|b",
                "'|' separates nothing here: write each name as a string of its own",
            ),
            (
                "a\\*",
                "there are no escapes: write [*] for the character '*'",
            ),
            (&"a".repeat(256), "it has more than 255 characters"),
        ] {
            assert_eq!(Pattern::parse(text).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn two_patterns_meet_if_one_text_matches_both() {
        for (one, other, meets) in [
            ("a*", "*b", true),
            ("a*", "b*", false),
            ("??", "???", false),
            ("[0-4]", "[4-9]", true),
            ("[0-3]", "[4-9]", false),
            ("[!a-z]", "[a-z]", false),
            ("*a*", "bbb", false),
        ] {
            assert_eq!(pattern(one).meets(&pattern(other)), meets, "{one} {other}");
            assert_eq!(pattern(other).meets(&pattern(one)), meets, "{other} {one}");
        }
    }

    #[test]
    fn a_pattern_with_many_stars_is_matched_quickly() {
        let stars = "*a".repeat(127);
        assert!(!pattern(&stars).matches(&"a".repeat(126)));
        assert!(pattern(&stars).matches(&"a".repeat(255)));
    }
}
