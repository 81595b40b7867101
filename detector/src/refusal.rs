//! Records that cannot be used: each hides itself alone, is named once in the log, and counted.
//! Pure. Responsible for what may stand in a name that is published, and for refusals that can be
//! printed. Must never repeat a name as it came, nor remember more than a bounded number.

use std::collections::BTreeSet;
use std::fmt;

/// The longest name of an object in sysfs, in bytes (`NAME_MAX`).
pub const MAX_NAME: usize = 255;
/// The most bytes of a refused name that are printed.
const MAX_SHOWN: usize = 64;
/// The most bytes of a refusal's text.
const MAX_TEXT: usize = 512;
/// At most this many different refusals are counted separately.
const MAX_REMEMBERED: usize = 256;
/// At most this many are shown to callers.
const MAX_LAST: usize = 8;

/// One record that was left out: what it is, what it is called, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal(String);

impl Refusal {
    /// The record of this `kind` that has this name, which is escaped here.
    #[must_use]
    pub fn named(kind: &str, name: &[u8], reason: impl fmt::Display) -> Self {
        let shown = name.get(..MAX_SHOWN).unwrap_or(name).escape_ascii();
        let more = if name.len() > MAX_SHOWN { "..." } else { "" };
        Self(format!("{kind} \"{shown}{more}\": {reason}"))
    }

    /// The record at this place, which has no name that could be shown. `reason` must be printable.
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

/// What was refused since the start.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    known: BTreeSet<Refusal>,
    /// The newest last.
    last: Vec<Refusal>,
}

impl Refusals {
    /// Notes a refusal; says whether it is to be logged, because it was not known.
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

    /// How many different ones there were: 0 to 256.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// The last 8 of them, the newest last.
    pub fn last(&self) -> impl Iterator<Item = &Refusal> {
        self.last.iter()
    }
}

/// The text that `bytes` are, when it can be a name that is published and printed.
///
/// # Errors
/// Why it cannot.
pub fn printable(bytes: &[u8], max: usize) -> Result<&str, &'static str> {
    if bytes.is_empty() {
        return Err("it is empty");
    }
    if bytes.len() > max {
        return Err("it is too long");
    }
    let text = str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    match text.contains(char::is_control) {
        true => Err("control characters may not stand in it"),
        false => Ok(text),
    }
}

/// The name of an entry of a directory that `bytes` are.
///
/// # Errors
/// Why they cannot be one.
pub fn entry_name(bytes: &[u8]) -> Result<&str, &'static str> {
    match printable(bytes, MAX_NAME)? {
        "." | ".." => Err("it means a directory"),
        name if name.contains('/') => Err("'/' may not stand in it"),
        name => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_for_what_is_wrong_with_it() {
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
    fn a_refusal_can_be_printed_and_is_short() {
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
