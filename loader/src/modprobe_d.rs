//! `modprobe.d(5)`, with everything that kmod 34.2 makes of it, quirks included: the plans of
//! this program and of modprobe must not differ. Pure. Must never skip a line without keeping
//! what was wrong with it.

mod ineffective;
mod lines;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::command_line::{self, Setting};
pub use ineffective::Ineffective;
pub use lines::Lines;
pub use text::underscored;
use text::{LogicalLines, Words, softdep};

/// Where a line stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a file.
    Line {
        /// The file.
        file: Arc<Path>,
        /// The number of the line, or of the last one where lines are joined, from 1.
        line: usize,
    },
    /// On the kernel command line.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "{}:{line}", file.display()),
            Self::CommandLine => f.write_str("the kernel command line"),
        }
    }
}

/// `alias PATTERN MODULE`.
#[derive(Clone, Debug)]
pub struct Alias {
    /// What is matched against the name that is asked for.
    pub pattern: Vec<u8>,
    /// The module. Whether there is one of that name nobody has looked.
    pub module: Vec<u8>,
}

/// `blacklist MODULE`.
#[derive(Clone, Debug)]
pub struct Blacklisted {
    /// The module.
    pub module: Vec<u8>,
    /// Who says so.
    pub source: Source,
}

/// `install PATTERN COMMAND` or `remove PATTERN COMMAND`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What is matched against a module's name.
    pub pattern: Vec<u8>,
    /// What modprobe would have a shell run.
    pub command: Vec<u8>,
    /// Who says so.
    pub source: Source,
}

/// `softdep PATTERN pre: MODULE... post: MODULE...`.
#[derive(Clone, Debug, Default)]
pub struct Softdep {
    /// What to load before it, as far as that can be done.
    pub pre: Vec<Vec<u8>>,
    /// What to load after it.
    pub post: Vec<Vec<u8>>,
}

/// A line that says nothing that modprobe understands.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The line.
    pub source: Source,
    /// Its first word, for people.
    pub word: String,
    /// The line.
    pub line: Vec<u8>,
}

/// The lines of all files, in the order in which they count, and then of the kernel command
/// line. Of several that match, the first counts, except that aliases and options add up.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Names for modules.
    pub aliases: Lines<Alias>,
    /// What is not to be loaded by name or alias.
    pub blacklist: Vec<Blacklisted>,
    /// Parameters, by the module or alias.
    options: HashMap<Vec<u8>, Vec<(usize, Vec<u8>)>>,
    /// How many lines of options there are.
    options_len: usize,
    /// What to run instead of loading.
    pub install: Lines<Command>,
    /// What to run instead of removing; a name of its own makes a module of that name.
    pub remove: Vec<Command>,
    /// What else to load.
    softdeps: Lines<Softdep>,
    /// Modules that the kernel itself refuses.
    pub kernel_blacklist: Vec<Vec<u8>>,
    /// Those of parameters in whose place the kernel takes a later one.
    replaced_kernel_blacklist: Vec<Vec<u8>>,
    /// Lines that were left out.
    pub problems: Vec<Problem>,
}

/// How much of a word is shown, in bytes.
const MAX_SHOWN: usize = 40;

/// The file of this project that keeps udev from loading RDMA drivers by itself. What it
/// blacklists is blacklisted for all but the loader, whose policy decides instead.
pub const OPT_IN_FILE: &str = "rdma-hotplug-opt-in.conf";
/// That file as it is shipped: a line that an administrator has put into it holds.
const OPT_IN: &[u8] =
    include_bytes!("../../deploy/root/usr/share/rdma-hotplug/rdma-hotplug-opt-in.conf");

impl Config {
    /// Adds what one file says.
    pub fn add_file(&mut self, path: &Path, text: &[u8]) {
        let file: Arc<Path> = path.into();
        let mut lines = LogicalLines::of(text);
        while let Some(line) = lines.next() {
            let source = Source::Line {
                file: Arc::clone(&file),
                line: lines.number(),
            };
            self.add_line(&line, source);
        }
    }

    /// Adds what the kernel command line says.
    pub fn add_command_line(&mut self, line: &[u8]) {
        for setting in command_line::settings(line) {
            match setting {
                Setting::Option { module, option } => {
                    if let Some(name) = underscored(&module) {
                        self.add_options(name, &option);
                    }
                }
                Setting::Blacklist(module) => self.blacklist.push(Blacklisted {
                    module,
                    source: Source::CommandLine,
                }),
            }
        }
        let mut lists = command_line::kernel_blacklists(line);
        self.kernel_blacklist = lists.pop().unwrap_or_default();
        self.replaced_kernel_blacklist = lists.concat();
    }

    fn add_options(&mut self, name: Vec<u8>, options: &[u8]) {
        let blank = |byte: &u8| if *byte == b'\t' { b' ' } else { *byte };
        let options = options.iter().map(blank).collect();
        let lines = self.options.entry(name).or_default();
        lines.push((self.options_len, options));
        self.options_len += 1;
    }

    /// What the kernel is given with a module that was asked for by this alias, with modprobe's
    /// blank at the end.
    #[must_use]
    pub fn parameters(&self, module: &[u8], alias: Option<&[u8]>) -> Vec<u8> {
        let of = |name| self.options.get(name).map_or(&[][..], Vec::as_slice);
        let by_alias = alias.filter(|alias| *alias != module).map_or(&[][..], of);
        let mut lines: Vec<&(usize, Vec<u8>)> = of(module).iter().chain(by_alias).collect();
        lines.sort_unstable_by_key(|(at, _)| *at);
        let mut parameters = Vec::new();
        for (_, options) in lines {
            if !options.is_empty() {
                parameters.extend_from_slice(options);
                parameters.push(b' ');
            }
        }
        parameters
    }

    fn add_line(&mut self, line: &[u8], source: Source) {
        // A comment begins in the first column or not at all.
        if line.first() == Some(&b'#') {
            return;
        }
        let mut words = Words::of(line);
        let Some(command) = words.next() else {
            return;
        };
        if self.add_command(command, &mut words, &source).is_none() {
            let shown = command.get(..MAX_SHOWN).unwrap_or(command);
            self.problems.push(Problem {
                source,
                word: shown.escape_ascii().to_string(),
                line: line.to_vec(),
            });
        }
    }

    /// Nothing when it is no command, or has not what it needs.
    fn add_command(
        &mut self,
        command: &[u8],
        words: &mut Words<'_>,
        source: &Source,
    ) -> Option<()> {
        let name = words.next().and_then(underscored);
        match command {
            b"alias" => {
                let (pattern, module) = (name?, words.next().and_then(underscored)?);
                self.aliases
                    .push(&pattern.clone(), Alias { pattern, module });
            }
            b"blacklist" => {
                let (module, source) = (name?, source.clone());
                self.blacklist.push(Blacklisted { module, source });
            }
            b"options" => self.add_options(name?, words.rest()?),
            b"install" | b"remove" => {
                let added = Command {
                    pattern: name?,
                    command: words.rest()?.to_vec(),
                    source: source.clone(),
                };
                if command == b"install" {
                    self.install.push(&added.pattern.clone(), added);
                } else {
                    self.remove.push(added);
                }
            }
            b"softdep" => {
                let (pattern, softdep) = (name?, softdep(words.rest()?));
                self.softdeps.push(&pattern, softdep);
            }
            // Only those who build an initrd read these.
            b"weakdep" => drop((name?, words.rest()?)),
            _ => return None,
        }
        Some(())
    }

    /// The line that keeps a module of exactly this name from being loaded.
    #[must_use]
    pub fn blacklisted(&self, module: &[u8]) -> Option<&Source> {
        let mut lines = self.blacklist.iter();
        lines
            .find(|line| line.module == module)
            .map(|line| &line.source)
    }

    /// Takes out what only the opt-in file blacklists, and blacklists as it is shipped.
    pub fn admit_opted_in(&mut self) {
        let mut shipped = Self::default();
        shipped.add_file(Path::new(OPT_IN_FILE), OPT_IN);
        self.blacklist.retain(|line| match &line.source {
            Source::Line { file, .. } => {
                file.file_name() != Some(OPT_IN_FILE.as_ref())
                    || shipped.blacklisted(&line.module).is_none()
            }
            Source::CommandLine => true,
        });
    }

    /// The command that stands in for loading `module`.
    #[must_use]
    pub fn install_command(&self, module: &[u8]) -> Option<&Command> {
        self.install.matching(module).next()
    }

    /// The command of the first install line of exactly this name, pattern or not.
    #[must_use]
    pub fn install_command_named(&self, name: &[u8]) -> Option<&Command> {
        self.install.written_for(name).next()
    }

    /// The soft dependencies of `module`, before and after it: of the first line that matches
    /// alone; or, with `merged`, of all (kmod after 34, should it take up kmod#459).
    pub fn softdeps(&self, module: &[u8], merged: bool) -> impl Iterator<Item = &Softdep> {
        let lines = self.softdeps.matching(module);
        lines.take(if merged { usize::MAX } else { 1 })
    }
}

/// The files in the order in which they count, from directories in the order of precedence: by
/// name over all of them, a name of an earlier directory hiding that of a later one, with
/// `modules.softdep` of the module tree under its own name among them.
#[must_use]
pub fn in_order(module_tree: &Path, directories: &[(PathBuf, Vec<OsString>)]) -> Vec<PathBuf> {
    let mut files = BTreeMap::new();
    for name in ["modules.softdep", "modules.weakdep"] {
        files.insert(OsString::from(name), module_tree.join(name));
    }
    for (directory, names) in directories {
        for name in names {
            if is_config_name(name.as_encoded_bytes()) {
                let entry = files.entry(name.clone());
                entry.or_insert_with(|| directory.join(name));
            }
        }
    }
    files.into_values().collect()
}

/// Whether modprobe reads a file of this name.
fn is_config_name(name: &[u8]) -> bool {
    name.len() >= 6 && name.ends_with(b".conf") && !name.starts_with(b".")
}

#[cfg(test)]
mod tests;
