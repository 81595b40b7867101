//! `modprobe.d(5)` as kmod 34.2 parses it, quirks included: the plans of this program and of
//! modprobe must not differ. Pure. Must never skip a line without recording its error.

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

/// The location of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A line of a file.
    Line {
        /// The file.
        file: Arc<Path>,
        /// The number of the line from 1. For joined lines, the number of the last one.
        line: usize,
    },
    /// The kernel command line.
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
    /// The pattern that a requested name is matched against.
    pub pattern: Vec<u8>,
    /// The module. It may not exist.
    pub module: Vec<u8>,
}

/// `blacklist MODULE`.
#[derive(Clone, Debug)]
pub struct Blacklisted {
    /// The module.
    pub module: Vec<u8>,
    /// The location of the line.
    pub source: Source,
}

/// `install PATTERN COMMAND` or `remove PATTERN COMMAND`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The pattern that a module's name is matched against.
    pub pattern: Vec<u8>,
    /// The shell command that modprobe would run.
    pub command: Vec<u8>,
    /// The location of the line.
    pub source: Source,
}

/// `softdep PATTERN pre: MODULE... post: MODULE...`.
#[derive(Clone, Debug, Default)]
pub struct Softdep {
    /// The modules to load before it, if possible.
    pub pre: Vec<Vec<u8>>,
    /// The modules to load after it.
    pub post: Vec<Vec<u8>>,
}

/// A line that modprobe does not understand.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The location of the line.
    pub source: Source,
    /// The first word of the line, for messages.
    pub word: String,
    /// The text of the line.
    pub line: Vec<u8>,
}

/// The lines of all files in the order in which they count, then those of the kernel command line.
/// If several lines match, the first counts; aliases and options add up.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Aliases of modules.
    pub aliases: Lines<Alias>,
    /// Modules that must not be loaded by name or alias.
    pub blacklist: Vec<Blacklisted>,
    /// Parameters, by module or alias.
    options: HashMap<Vec<u8>, Vec<(usize, Vec<u8>)>>,
    /// The number of lines of options.
    options_len: usize,
    /// Commands to run instead of loading.
    pub install: Lines<Command>,
    /// Commands to run instead of removing. A line for an unknown name defines a module of that
    /// name.
    pub remove: Vec<Command>,
    /// Soft dependencies.
    softdeps: Lines<Softdep>,
    /// Modules that the kernel itself refuses.
    pub kernel_blacklist: Vec<Vec<u8>>,
    /// Modules of `module_blacklist=` parameters that a later one replaces.
    replaced_kernel_blacklist: Vec<Vec<u8>>,
    /// Lines that were skipped.
    pub problems: Vec<Problem>,
}

/// The number of bytes of a word that a message shows.
const MAX_SHOWN: usize = 40;

/// The file of this project that keeps udev from loading RDMA drivers. The modules that it
/// blacklists are blacklisted for all programs but the loader, whose policy decides instead.
pub const OPT_IN_FILE: &str = "rdma-hotplug-opt-in.conf";
/// The content of that file as shipped. A line that an administrator has added to it applies.
const OPT_IN: &[u8] =
    include_bytes!("../../deploy/root/usr/share/rdma-hotplug/rdma-hotplug-opt-in.conf");

impl Config {
    /// Adds the lines of one file.
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

    /// Adds the settings of the kernel command line.
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

    /// Returns the parameters that the kernel receives with a module that was requested by this
    /// alias, with modprobe's blank at the end.
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

    /// Returns `None` if `command` is not a command, or if an argument is missing.
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
            // Only programs that build an initrd read these lines.
            b"weakdep" => drop((name?, words.rest()?)),
            _ => return None,
        }
        Some(())
    }

    /// Returns the line that blacklists a module of exactly this name.
    #[must_use]
    pub fn blacklisted(&self, module: &[u8]) -> Option<&Source> {
        let mut lines = self.blacklist.iter();
        lines
            .find(|line| line.module == module)
            .map(|line| &line.source)
    }

    /// Removes the lines of the opt-in file that blacklist modules of its shipped version.
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

    /// Returns the command that replaces the loading of `module`.
    #[must_use]
    pub fn install_command(&self, module: &[u8]) -> Option<&Command> {
        self.install.matching(module).next()
    }

    /// Returns the command of the first install line of exactly this name, pattern or not.
    #[must_use]
    pub fn install_command_named(&self, name: &[u8]) -> Option<&Command> {
        self.install.written_for(name).next()
    }

    /// Returns the soft dependencies of `module`: of the first line that matches, or with `merged`,
    /// of all lines (kmod after 34, should it adopt kmod#459).
    pub fn softdeps(&self, module: &[u8], merged: bool) -> impl Iterator<Item = &Softdep> {
        let lines = self.softdeps.matching(module);
        lines.take(if merged { usize::MAX } else { 1 })
    }
}

/// Returns the files in the order in which they count. `directories` are in the order of
/// precedence. All files are sorted by name, and a name in an earlier directory hides it in later
/// ones. `modules.softdep` of the module tree is sorted under its own name.
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

/// Returns true if modprobe reads a file of this name.
fn is_config_name(name: &[u8]) -> bool {
    name.len() >= 6 && name.ends_with(b".conf") && !name.starts_with(b".")
}

#[cfg(test)]
mod tests;
