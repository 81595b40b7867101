//! Unusable records: each is left out alone, logged once, and counted. Pure. Responsible for the
//! characters that a published name may contain, and for messages that can be printed. Must never
//! repeat a name without escaping it, and never store more than a limited number of messages.

use std::collections::BTreeSet;
use std::fmt;

/// The longest name of an object in sysfs, in bytes (`NAME_MAX`).
pub const MAX_NAME: usize = 255;
/// The maximum number of bytes of a refused name that are printed.
const MAX_SHOWN: usize = 64;
/// The maximum number of bytes in the message.
const MAX_TEXT: usize = 512;
/// The maximum number of different refusals that are counted.
const MAX_REMEMBERED: usize = 256;
/// The maximum number of refusals that callers can see.
const MAX_LAST: usize = 8;

/// A record that was left out: its kind, its name, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal(String);

impl Refusal {
    /// Creates the refusal of the record of this `kind` with this name, which is escaped here.
    #[must_use]
    pub fn named(kind: &str, name: &[u8], reason: impl fmt::Display) -> Self {
        let shown = name.get(..MAX_SHOWN).unwrap_or(name).escape_ascii();
        let more = if name.len() > MAX_SHOWN { "..." } else { "" };
        Self(format!("{kind} \"{shown}{more}\": {reason}"))
    }

    /// Creates the refusal of the record at this place, which has no printable name. `reason` must
    /// be printable.
    #[must_use]
    pub fn at(place: impl fmt::Display, reason: impl fmt::Display) -> Self {
        let mut text = format!("{place}: {reason}");
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        Self(text)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The refusals since the start.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    known: BTreeSet<Refusal>,
    /// The last refusals, the newest last.
    last: Vec<Refusal>,
}

impl Refusals {
    /// Records a refusal. Returns true if it must be logged, because it is new.
    pub fn note(&mut self, refusal: Refusal) -> bool {
        if self.known.len() >= MAX_REMEMBERED || !self.known.insert(refusal.clone()) {
            return false;
        }
        if self.last.len() == MAX_LAST {
            self.last.remove(0);
        }
        self.last.push(refusal);
        true
    }

    /// Returns the number of different refusals: 0 to 256.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Returns the last 8 refusals, the newest last.
    pub fn last(&self) -> impl Iterator<Item = &Refusal> {
        self.last.iter()
    }
}

/// Returns `bytes` as text, if it can be a name that is published and printed.
///
/// # Errors
/// Fails with the reason if it cannot.
pub fn printable(bytes: &[u8], max: usize) -> Result<&str, &'static str> {
    if bytes.is_empty() {
        return Err("it is empty");
    }
    if bytes.len() > max {
        return Err("it is too long");
    }
    let text = str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    match text.contains(char::is_control) {
        true => Err("it contains control characters"),
        false => Ok(text),
    }
}

/// Returns `bytes` as the name of a directory entry.
///
/// # Errors
/// Fails with the reason if they are not a valid name.
pub fn entry_name(bytes: &[u8]) -> Result<&str, &'static str> {
    match printable(bytes, MAX_NAME)? {
        "." | ".." => Err("it is the name of a directory"),
        name if name.contains('/') => Err("it contains '/'"),
        name => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_directory_entry_name_is_accepted() {
        assert_eq!(entry_name(b"uverbs0"), Ok("uverbs0"));
        assert_eq!(entry_name("gerät0".as_bytes()), Ok("gerät0"));
        let long = [b'x'; 256];
        for name in [
            &b""[..],
            b".",
            b"..",
            b"a/b",
            b"a\0",
            b"rx\x1be0",
            "rx\u{9b}e0".as_bytes(),
            b"rx\xff",
            &long,
        ] {
            assert!(entry_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_refusal_is_printable_and_short() {
        let long = [&b"\x1b[2J\xff"[..], &[b'x'; 4096]].concat();
        let shown = Refusal::named("module", &long, "it is too long").to_string();
        assert!(!shown.contains(char::is_control), "{shown:?}");
        assert!(shown.starts_with("module \"\\x1b[2J\\xffx"), "{shown}");
        assert!(shown.len() < 400, "{}", shown.len());
    }

    #[test]
    fn a_refusal_is_logged_once_and_at_most_256_are_remembered() {
        let mut refusals = Refusals::default();
        let one = |number: u32| Refusal::at(number, "wrong");
        assert!(refusals.note(one(0)));
        assert!(!refusals.note(one(0)));
        for number in 0..10_000 {
            refusals.note(one(number));
        }
        assert_eq!(refusals.count(), MAX_REMEMBERED);
        assert_eq!(refusals.last().count(), MAX_LAST);
        assert!(!refusals.note(one(20_000)));
    }
}
