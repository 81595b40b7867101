//! What may be loaded, and who may ask. Pure: verdicts are computed here and acted on
//! elsewhere. Must never say yes to what no policy file names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use interfaces::names::ModuleName;
use interfaces::server::Peer;
use serde::Deserialize;

use crate::plan::Plan;

/// One policy file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    allow: Vec<Allowance>,
}

/// Modules that may be loaded, and what for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowance {
    #[expect(
        dead_code,
        reason = "says to people why the modules are named; must be there"
    )]
    purpose: String,
    modules: Vec<ModuleName>,
}

/// The modules that may be loaded by name, and the file that says so.
#[derive(Debug, Default)]
pub struct Policy {
    allowed: BTreeMap<ModuleName, PathBuf>,
}

/// Whether a module may be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// This file allows it.
    Allowed(PathBuf),
    /// No file names it.
    Unlisted,
}

impl Policy {
    /// Takes over what one file allows.
    ///
    /// # Errors
    /// When the text is not a policy; it says where. Nothing of the file counts then.
    pub fn add(&mut self, path: &Path, text: &str) -> Result<(), toml::de::Error> {
        let file: PolicyFile = toml::from_str(text)?;
        for allowance in file.allow {
            for module in allowance.modules {
                self.allowed
                    .entry(module)
                    .or_insert_with(|| path.to_owned());
            }
        }
        Ok(())
    }

    /// Judges the module that a name stands for, not the name: an alias can be given to any
    /// module. What the module depends on is implied.
    pub fn judge(&self, plan: &Plan) -> Verdict {
        self.allowed
            .get(&plan.module)
            .map_or(Verdict::Unlisted, |path| Verdict::Allowed(path.clone()))
    }

    /// How many modules may be loaded by name.
    #[must_use]
    pub fn len(&self) -> usize {
        self.allowed.len()
    }

    /// Whether nothing at all may be loaded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allowed.is_empty()
    }
}

/// Who may have modules loaded: root, and the orchestrator's user when there is one.
#[derive(Clone, Copy, Debug)]
pub struct Callers {
    /// The orchestrator's user.
    pub orchestrator: Option<u32>,
}

/// Whether a caller may have modules loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Authorisation {
    /// It may.
    Granted,
    /// It is neither root nor the orchestrator.
    Refused,
}

impl Callers {
    /// Judges a caller.
    pub fn authorise(&self, peer: Peer) -> Authorisation {
        if peer.uid == 0 || Some(peer.uid) == self.orchestrator {
            Authorisation::Granted
        } else {
            Authorisation::Refused
        }
    }
}

/// The number of `user`, a number itself or a name in `passwd` (`passwd(5)`).
#[must_use]
pub fn uid_of(user: &str, passwd: &str) -> Option<u32> {
    user.parse().ok().or_else(|| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(user)).then(|| fields.nth(1)?.parse().ok())?
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(module: &str) -> Plan {
        Plan {
            module: ModuleName::parse(module).unwrap(),
            steps: Vec::new(),
        }
    }

    #[test]
    fn only_what_a_file_names_is_allowed_whatever_its_spelling() {
        let mut policy = Policy::default();
        let path = Path::new("50-rdma.toml");
        let text = "[[allow]]\npurpose = \"verbs\"\nmodules = [\"ib-uverbs\"]\n";
        policy.add(path, text).unwrap();
        let allowed = policy.judge(&plan("ib_uverbs"));
        assert_eq!(allowed, Verdict::Allowed(path.to_owned()));
        assert_eq!(policy.judge(&plan("dccp")), Verdict::Unlisted);
    }

    #[test]
    fn a_file_with_a_mistake_allows_nothing() {
        for text in [
            "[[allow]]\npurpose = \"x\"\nmodules = [\"ib_core\", \"../evil\"]\n",
            "[[allow]]\nmodules = [\"ib_core\"]\n",
            "[[alow]]\npurpose = \"x\"\nmodules = [\"ib_core\"]\n",
            "[[allow]]\npurpose = \"x\"\nmodules = [\"ib_core\"]\noptions = \"x=1\"\n",
        ] {
            let mut policy = Policy::default();
            assert!(policy.add(Path::new("x.toml"), text).is_err(), "{text}");
            assert!(policy.is_empty());
        }
    }

    #[test]
    fn root_and_the_orchestrator_may_load_and_nobody_else() {
        let peer = |uid| Peer { uid, pid: None };
        let callers = Callers {
            orchestrator: Some(990),
        };
        assert_eq!(callers.authorise(peer(0)), Authorisation::Granted);
        assert_eq!(callers.authorise(peer(990)), Authorisation::Granted);
        assert_eq!(callers.authorise(peer(65534)), Authorisation::Refused);
        let nobody_else = Callers { orchestrator: None };
        assert_eq!(nobody_else.authorise(peer(990)), Authorisation::Refused);
    }

    #[test]
    fn a_user_is_found_by_name_or_number() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\nrdma-orchestrator:!*:990:990::/:/usr/sbin/nologin\n";
        assert_eq!(uid_of("rdma-orchestrator", passwd), Some(990));
        assert_eq!(uid_of("1000", passwd), Some(1000));
        assert_eq!(uid_of("rdma", passwd), None);
    }
}
