//! The matching of module aliases: `fnmatch(3)` patterns without flags, over bytes, as kmod uses
//! them in the C locale. Pure. Must never take more time than the product of both lengths.

/// Returns true if this byte starts a wildcard.
#[must_use]
pub fn is_wildcard(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[')
}

/// Returns true if `pattern` matches the whole of `text`.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern_rest, mut text_rest) = (pattern, text);
    // The position after the last `*`, and the text that it has not consumed yet. A retry from
    // there with one more byte consumed is all the backtracking that a glob needs.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some((b'*', after)) = pattern_rest.split_first() {
            star = Some((after, text_rest));
            pattern_rest = after;
            continue;
        }
        let step = match text_rest.split_first() {
            None if pattern_rest.is_empty() => return true,
            None => return false,
            Some((&byte, text_after)) => {
                one(pattern_rest, byte).map(|pattern_after| (pattern_after, text_after))
            }
        };
        match (step, star) {
            (Some((pattern_after, text_after)), _) => {
                (pattern_rest, text_rest) = (pattern_after, text_after);
            }
            (None, Some((after, unswallowed))) => {
                let Some((_, unswallowed)) = unswallowed.split_first() else {
                    return false;
                };
                star = Some((after, unswallowed));
                (pattern_rest, text_rest) = (after, unswallowed);
            }
            (None, None) => return false,
        }
    }
}

/// Matches one byte against the first element of `pattern`. Returns the rest of the pattern if it
/// matches.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern.split_first()? {
        (b'?', after) => Some(after),
        (b'\\', [escaped, after @ ..]) => (*escaped == byte).then_some(after),
        (b'[', after) => match bracket(after, byte) {
            Some((true, after)) => Some(after),
            Some((false, _)) => None,
            // An unterminated bracket is a literal `[`.
            None => (byte == b'[').then_some(after),
        },
        (literal, after) => (*literal == byte).then_some(after),
    }
}

/// Matches one byte against a bracket expression. `inside` starts after the `[`. Returns `None` if
/// the expression is unterminated.
fn bracket(inside: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match inside {
        [b'!' | b'^', after @ ..] => (true, after),
        _ => (false, inside),
    };
    let mut matched = false;
    let mut first = true;
    loop {
        match rest {
            [b']', after @ ..] if !first => return Some((matched != negated, after)),
            [b'[', b':', after @ ..] => {
                let end = after.windows(2).position(|pair| pair == b":]")?;
                matched |= in_class(after.get(..end)?, byte);
                rest = after.get(end + 2..)?;
            }
            [low, b'-', high, after @ ..] if *high != b']' => {
                matched |= (*low..=*high).contains(&byte);
                rest = after;
            }
            [literal, after @ ..] => {
                matched |= *literal == byte;
                rest = after;
            }
            [] => return None,
        }
        first = false;
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    match class {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("a", "", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("a*c", "abbbc", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("?", "/", true),
            ("[abc]", "b", true),
            ("[a-c]", "b", true),
            ("[!a-c]", "b", false),
            ("[^a-c]", "d", true),
            ("[]a]", "]", true),
            ("[[:digit:]]*", "7x", true),
            ("[abc", "[abc", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            (
                "pci:v000015B3d00001013sv*sd*bc*sc*i*",
                "pci:v000015B3d00001013sv000015B3sd00000001bc02sc00i00",
                true,
            ),
        ] {
            let found = matches(pattern.as_bytes(), text.as_bytes());
            assert_eq!(found, expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn a_pattern_with_many_stars_takes_no_exponential_time() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(4000).as_bytes()));
    }
}
