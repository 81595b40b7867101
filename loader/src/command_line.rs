//! The kernel command line, as its two readers parse it: modprobe reads `MODULE.PARAMETER` options
//! and `modprobe.blacklist=`, the kernel itself reads `module_blacklist=`. Pure. Must never read
//! more into a word than its reader does.

/// The number of bytes of the command line that modprobe reads (`KCMD_LINE_SIZE` in
/// `libkmod/libkmod-config.c`, without the final NUL).
pub const MODPROBE_READS: usize = 4095;

/// A setting that modprobe reads from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// A parameter of a module, as the kernel receives it: `NAME` or `NAME=VALUE`.
    Option {
        /// The module, as written.
        module: Vec<u8>,
        /// The parameter.
        option: Vec<u8>,
    },
    /// A word of `modprobe.blacklist=`, as written: `-` and `_` are different here.
    Blacklist(Vec<u8>),
}

/// The part of a word that modprobe's parser is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A word that modprobe ignores.
    Ignored,
    Module,
    Parameter,
    Value,
}

/// A word being read, with the positions where its parts begin.
struct Word {
    part: Part,
    module: usize,
    parameter: usize,
    value: usize,
    /// True if the whole word is in quotes. They must then enclose the value alone.
    quoted: bool,
}

impl Word {
    fn at(start: usize) -> Self {
        Self {
            part: Part::Module,
            module: start,
            parameter: start,
            value: start,
            quoted: false,
        }
    }

    /// Returns the settings of the word, which ends before `end`. There are none if modprobe
    /// ignores the word.
    fn end(&self, line: &[u8], end: usize) -> Vec<Setting> {
        let bytes = |from: usize, to: usize| line.get(from..to).unwrap_or_default();
        let module = bytes(self.module, self.parameter.saturating_sub(1));
        let (option, value) = match self.part {
            Part::Parameter => (bytes(self.parameter, end).to_vec(), Vec::new()),
            Part::Value => {
                let quote: &[u8] = if self.quoted { b"\"" } else { b"" };
                let value = [quote, bytes(self.value, end)].concat();
                let name = bytes(self.parameter, self.value);
                ([name, &value].concat(), value)
            }
            Part::Ignored | Part::Module => return Vec::new(),
        };
        if module == b"modprobe" && option.starts_with(b"blacklist=") {
            let words = value.split(|&byte| byte == b',');
            return words
                .map(|word| Setting::Blacklist(word.to_vec()))
                .collect();
        }
        vec![Setting::Option {
            module: module.to_vec(),
            option,
        }]
    }
}

/// Reads the command line as modprobe does (`kmod_config_parse_kcmdline()` of kmod 34).
#[must_use]
pub fn settings(line: &[u8]) -> Vec<Setting> {
    let line = line.get(..MODPROBE_READS).unwrap_or(line);
    let end = line.iter().position(|&byte| byte == 0);
    let line = line.get(..end.unwrap_or(line.len())).unwrap_or_default();
    let mut settings = Vec::new();
    let mut word = Word::at(0);
    let mut in_quotes = false;
    for (at, byte) in line.iter().copied().chain([0]).enumerate() {
        match byte {
            b'"' => {
                in_quotes = !in_quotes;
                if in_quotes && word.part == Part::Module && at == word.module {
                    word.quoted = true;
                    word.module = at + 1;
                } else if word.part != Part::Value {
                    word.part = Part::Ignored;
                }
            }
            0 | b' ' | b'\n' | b'\t' | 0x0b | 0x0c | b'\r' => {
                if in_quotes {
                    if word.part != Part::Value {
                        word.part = Part::Ignored;
                    }
                } else {
                    settings.extend(word.end(line, at));
                    word = Word::at(at + 1);
                }
            }
            b'.' => match word.part {
                Part::Module => {
                    word.parameter = at + 1;
                    word.part = Part::Parameter;
                }
                // A file name must not be taken for a parameter.
                Part::Parameter => word.part = Part::Ignored,
                Part::Ignored | Part::Value => {}
            },
            b'=' => match word.part {
                Part::Parameter => {
                    word.value = at + 1;
                    word.part = Part::Value;
                }
                Part::Module => word.part = Part::Ignored,
                Part::Ignored | Part::Value => {}
            },
            _ => {}
        }
    }
    settings
}

/// Returns the modules that the kernel itself refuses (`module_blacklist=` in
/// `kernel-parameters.txt`): exact names, one list per parameter. The last such parameter before
/// `--` counts (`parse_args()` in `kernel/params.c`).
#[must_use]
pub fn kernel_blacklists(line: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut blacklists = Vec::new();
    for word in kernel_words(line) {
        if word == b"--" {
            break;
        }
        let Some(at) = word.iter().position(|&byte| byte == b'=') else {
            continue;
        };
        let (name, value) = (word.get(..at), word.get(at + 1..));
        let name: Vec<u8> = name.unwrap_or_default().iter().map(dash).collect();
        if name == b"module_blacklist" {
            let value = value.unwrap_or_default();
            let value = value.strip_prefix(b"\"").unwrap_or(value);
            let value = value.strip_suffix(b"\"").unwrap_or(value);
            let names = value.split(|&byte| byte == b',');
            let names = names.filter(|name| !name.is_empty());
            blacklists.push(names.map(<[u8]>::to_vec).collect());
        }
    }
    blacklists
}

/// Maps `-` to `_`: the kernel accepts both in the name of a parameter.
fn dash(byte: &u8) -> u8 {
    if *byte == b'-' { b'_' } else { *byte }
}

/// Splits the line into words as `next_arg()` in the kernel's `lib/cmdline.c` does: blanks within
/// quotes do not separate words. Removes quotes around a whole word.
fn kernel_words(line: &[u8]) -> Vec<&[u8]> {
    let mut words = Vec::new();
    let mut start = 0;
    let mut in_quotes = false;
    for (at, byte) in line.iter().copied().chain([b' ']).enumerate() {
        match byte {
            b'"' => in_quotes = !in_quotes,
            byte if byte.is_ascii_whitespace() && !in_quotes => {
                let word = line.get(start..at).unwrap_or_default();
                let bare = word.strip_prefix(b"\"");
                words.push(bare.map_or(word, |bare| bare.strip_suffix(b"\"").unwrap_or(bare)));
                start = at + 1;
            }
            _ => {}
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Vec<String> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        settings(line.as_bytes())
            .into_iter()
            .map(|setting| match setting {
                Setting::Option { module, option } => format!("{} {}", text(module), text(option)),
                Setting::Blacklist(module) => format!("blacklist {}", text(module)),
            })
            .collect()
    }

    #[test]
    fn only_module_parameters_and_modprobe_blacklists_are_read() {
        let line = "BOOT_IMAGE=/vmlinuz-3.12.1 ro quiet psmouse.proto=bare a.b.c=1 x.y \
                    modprobe.blacklist=ib-umad,,loop module_blacklist=dccp\n";
        let expected = [
            "psmouse proto=bare",
            "x y",
            "blacklist ib-umad",
            "blacklist ",
            "blacklist loop",
        ];
        assert_eq!(told(line), expected);
    }

    #[test]
    fn quotes_are_valid_in_the_value_or_around_the_word() {
        assert_eq!(told("m.p=\"a b\" n.q=1"), ["m p=\"a b\"", "n q=1"]);
        assert_eq!(told("\"m.p=a b\" n.q=1"), ["m p=\"a b\"", "n q=1"]);
        assert_eq!(told("m\".p=a b\" n.q=1"), ["n q=1"]);
        // An unterminated quote swallows the rest.
        assert!(told("m.p=\"a b n.q=1").is_empty());
    }

    #[test]
    fn modprobe_reads_at_most_4095_bytes() {
        let long = format!("{} m.p=1", "x".repeat(MODPROBE_READS - 6));
        assert_eq!(told(&long), ["m p=1"]);
        let longer = format!("{} m.p=12", "x".repeat(MODPROBE_READS - 6));
        assert_eq!(told(&longer), ["m p=1"]);
    }

    #[test]
    fn the_last_module_blacklist_counts_with_exact_names() {
        let names = |line: &str| -> Vec<String> {
            let names = kernel_blacklists(line.as_bytes()).pop();
            names
                .into_iter()
                .flatten()
                .map(|name| String::from_utf8(name).unwrap())
                .collect()
        };
        let line = "a module_blacklist=x module-blacklist=ib_umad,ib-core -- module_blacklist=y";
        assert_eq!(names(line), ["ib_umad", "ib-core"]);
        assert_eq!(names("\"module_blacklist=a,b\""), ["a", "b"]);
        assert!(names("modprobe.blacklist=x").is_empty());
    }
}
