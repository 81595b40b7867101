//! The policy: the modules that may be loaded. Pure: verdicts are computed here and acted on
//! elsewhere. Must never allow a module that no policy file names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use interfaces::names::ModuleName;
use serde::Deserialize;

/// One policy file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    allow: Vec<Allowance>,
}

/// Modules that may be loaded, and their purpose.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowance {
    purpose: String,
    modules: Vec<ModuleName>,
}

/// The policy file that allows a module, and the purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The policy file.
    pub file: PathBuf,
    /// The purpose for which the file names the module.
    pub purpose: String,
}

/// The modules that may be loaded by name, each with the file that allows it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Policy {
    allowed: BTreeMap<ModuleName, Allowed>,
    refused: Vec<String>,
}

impl Policy {
    /// Adds the modules that one file allows: all of them, or none if the file has an error.
    pub fn add(&mut self, path: &Path, text: &str) {
        match toml::from_str::<PolicyFile>(text) {
            Ok(file) => {
                for Allowance { purpose, modules } in file.allow {
                    for module in modules {
                        let allowed = Allowed {
                            file: path.to_owned(),
                            purpose: purpose.clone(),
                        };
                        self.allowed.entry(module).or_insert(allowed);
                    }
                }
            }
            Err(e) => self.refuse(path, &e.to_string()),
        }
    }

    /// Creates a policy that allows nothing because it could not be read.
    #[must_use]
    pub fn of_nothing(why: String) -> Self {
        Self {
            allowed: BTreeMap::new(),
            refused: vec![why],
        }
    }

    /// Records a file that cannot be used, and so allows nothing.
    pub fn refuse(&mut self, path: &Path, reason: &str) {
        let reason = reason.trim_end();
        self.refused.push(format!("{}: {reason}", path.display()));
    }

    /// Returns a message for each file that cannot be used.
    #[must_use]
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// Returns the entry that allows `module`, or `None`. The argument is the module that a name
    /// stands for, not the name: an alias can be given to any module. The dependencies of the
    /// module are implied. A soft dependency is not: the policy must name it, or it is left out.
    #[must_use]
    pub fn allowance(&self, module: &[u8]) -> Option<&Allowed> {
        let module = ModuleName::parse(str::from_utf8(module).ok()?).ok()?;
        self.allowed.get(&module)
    }

    /// Returns the modules that may be loaded by name, sorted by name.
    pub fn modules(&self) -> impl Iterator<Item = (&ModuleName, &Allowed)> {
        self.allowed.iter()
    }

    /// Returns the number of modules that may be loaded by name.
    #[must_use]
    pub fn len(&self) -> usize {
        self.allowed.len()
    }

    /// Returns true if no module may be loaded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allowed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_modules_that_a_file_names_are_allowed_with_dashes_or_underscores() {
        let mut policy = Policy::default();
        let path = Path::new("50-rdma.toml");
        let text = "[[allow]]\npurpose = \"verbs\"\nmodules = [\"ib-uverbs\"]\n";
        policy.add(path, text);
        assert!(policy.refused().is_empty());
        let allowed = policy.allowance(b"ib_uverbs");
        let expected = Allowed {
            file: path.to_owned(),
            purpose: "verbs".to_owned(),
        };
        assert_eq!(allowed, Some(&expected));
        for other in [&b"dccp"[..], b"", b"\xff", b"ib_uverbs.ko"] {
            assert_eq!(policy.allowance(other), None);
        }
    }

    #[test]
    fn a_file_with_an_error_allows_nothing() {
        for text in [
            "[[allow]]\npurpose = \"x\"\nmodules = [\"ib_core\", \"../evil\"]\n",
            "[[allow]]\nmodules = [\"ib_core\"]\n",
            "[[alow]]\npurpose = \"x\"\nmodules = [\"ib_core\"]\n",
            "[[allow]]\npurpose = \"x\"\nmodules = [\"ib_core\"]\noptions = \"x=1\"\n",
        ] {
            let mut policy = Policy::default();
            policy.add(Path::new("x.toml"), text);
            assert_eq!(policy.refused().len(), 1, "{text}");
            assert!(policy.is_empty());
        }
    }
}
