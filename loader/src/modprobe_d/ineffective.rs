//! Lines that were meant for a module and have no effect: their reader does not match the name as
//! it is spelled, or modprobe does not understand the line. Pure. Must never report a line that has
//! an effect.

use super::{Config, Source};

/// A line without effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ineffective {
    /// The location of the line.
    pub source: Source,
    /// The reason that it has no effect, as text.
    pub reason: String,
}

impl Config {
    /// Returns the lines that seem to be meant for `module` and have no effect.
    #[must_use]
    pub fn ineffective(&self, module: &[u8]) -> Vec<Ineffective> {
        let named = |word: &[u8]| word != module && bare(word) == module;
        let name = module.escape_ascii();
        let mut lines = Vec::new();
        for line in self.blacklist.iter().filter(|line| named(&line.module)) {
            let written = line.module.escape_ascii();
            let what = match line.source {
                Source::CommandLine => "modprobe.blacklist=",
                Source::Line { .. } => "the line",
            };
            lines.push(Ineffective {
                source: line.source.clone(),
                reason: format!(
                    "{what} names '{written}', which modprobe does not read as '{name}'"
                ),
            });
        }
        let on_command_line = |reason: String| Ineffective {
            source: Source::CommandLine,
            reason,
        };
        for word in self.kernel_blacklist.iter().filter(|word| named(word)) {
            let written = word.escape_ascii();
            lines.push(on_command_line(format!(
                "module_blacklist= names '{written}', which the kernel does not read as '{name}'"
            )));
        }
        let mut replaced = self.replaced_kernel_blacklist.iter();
        if replaced.any(|word| bare(word) == module)
            && !self.kernel_blacklist.iter().any(|word| word == module)
        {
            lines.push(on_command_line(format!(
                "a later module_blacklist= replaces the one that names {name}"
            )));
        }
        for problem in &self.problems {
            let mut words = problem.line.split(u8::is_ascii_whitespace);
            if words.any(|word| bare(word) == module) {
                let word = &problem.word;
                lines.push(Ineffective {
                    source: problem.source.clone(),
                    reason: format!("modprobe does not know '{word}' and ignores the line"),
                });
            }
        }
        lines
    }
}

/// Returns the name that was meant, without the additions of an editor or a shell.
fn bare(word: &[u8]) -> Vec<u8> {
    let is_of_a_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let word = word.split(|&byte| byte == b'.').next().unwrap_or_default();
    let name = word.iter().filter(|byte| is_of_a_name(byte));
    name.map(|&byte| if byte == b'-' { b'_' } else { byte })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn told(file: &[u8], command_line: &[u8]) -> Vec<String> {
        let mut config = Config::default();
        config.add_file(Path::new("a.conf"), file);
        config.add_command_line(command_line);
        let told = |line: Ineffective| format!("{}: {}", line.source, line.reason);
        let lines = config.ineffective(b"ib_umad").into_iter();
        lines.map(told).collect()
    }

    /// Case S6.
    #[test]
    fn an_ineffective_line_about_the_module_is_reported_with_its_reason() {
        for (file, command_line, said) in [
            (
                "",
                "modprobe.blacklist=\"loop,ib_umad\"",
                r#"the kernel command line: modprobe.blacklist= names 'ib_umad\"', which modprobe does not read as 'ib_umad'"#,
            ),
            (
                "",
                "modprobe.blacklist=ib-umad",
                "the kernel command line: modprobe.blacklist= names 'ib-umad', which modprobe does not read as 'ib_umad'",
            ),
            (
                "",
                "module_blacklist=ib-umad,loop",
                "the kernel command line: module_blacklist= names 'ib-umad', which the kernel does not read as 'ib_umad'",
            ),
            (
                "",
                "module_blacklist=ib_umad module_blacklist=loop",
                "the kernel command line: a later module_blacklist= replaces the one that names ib_umad",
            ),
            (
                "#\r\nblacklist ib_umad\r\n",
                "",
                r"a.conf:2: the line names 'ib_umad\r', which modprobe does not read as 'ib_umad'",
            ),
            (
                "blacklist ib_umad.ko\n",
                "",
                "a.conf:1: the line names 'ib_umad.ko', which modprobe does not read as 'ib_umad'",
            ),
            (
                "\u{feff}blacklist ib-umad\n",
                "",
                r"a.conf:1: modprobe does not know '\xef\xbb\xbfblacklist' and ignores the line",
            ),
            (
                "blaclist ib_umad\n",
                "",
                "a.conf:1: modprobe does not know 'blaclist' and ignores the line",
            ),
        ] {
            assert_eq!(told(file.as_bytes(), command_line.as_bytes()), [said]);
        }
    }

    #[test]
    fn a_line_that_has_an_effect_or_is_for_another_module_is_not_reported() {
        for (file, command_line) in [
            ("blacklist ib-umad\n", ""),
            ("", "modprobe.blacklist=ib_umad module_blacklist=ib_umad"),
            ("", "module_blacklist=ib_umad module_blacklist=ib_umad"),
            ("", "modprobe.blacklist=ib_umad2,umad"),
            ("nonsense about ib_umad2\n# blaclist ib_umad\n", ""),
            (
                "options ib_umad x=1\nsoftdep ib_umad pre: loop\n",
                "ib_umad.x=1",
            ),
        ] {
            let told = told(file.as_bytes(), command_line.as_bytes());
            assert_eq!(told, [""; 0], "{file}{command_line}");
        }
    }
}
