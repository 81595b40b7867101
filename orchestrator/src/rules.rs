//! Rules: which modules a device should have. Pure: rules files come in as text. Must never
//! let one bad file take another one down.

use std::path::{Path, PathBuf};

use interfaces::detector::{Device, Protocol};
use interfaces::names::ModuleName;
use serde::Deserialize;

/// One rules file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    #[serde(default)]
    rule: Vec<RuleText>,
}

/// One rule as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    /// Only for devices with a port that speaks one of these; for every device when absent.
    protocol: Option<Vec<Protocol>>,
    /// What such a device should have.
    modules: Vec<ModuleName>,
}

/// One rule and where it stands.
#[derive(Clone, Debug)]
pub struct Rule {
    file: PathBuf,
    number: usize,
    text: RuleText,
}

/// A module that a device should have, and the file that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The module.
    pub module: ModuleName,
    /// The rules file.
    pub rule: PathBuf,
}

/// All rules, and what is wrong with the files that are not in use.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    files: Vec<PathBuf>,
    errors: Vec<String>,
}

impl Rules {
    /// Takes over one file: all of it, or nothing when something is wrong in it.
    pub fn add(&mut self, path: &Path, text: &str) {
        match toml::from_str::<RulesFile>(text) {
            Ok(file) => {
                self.files.push(path.to_owned());
                let rules = (1..).zip(file.rule).map(|(number, text)| Rule {
                    file: path.to_owned(),
                    number,
                    text,
                });
                self.rules.extend(rules);
            }
            Err(e) => self.refuse(path, &e.to_string()),
        }
    }

    /// Notes a file that cannot be used.
    pub fn refuse(&mut self, path: &Path, reason: &str) {
        let reason = reason.trim_end();
        self.errors.push(format!("{}: {reason}", path.display()));
    }

    /// The modules that `device` should have, each once, in the order of the rules.
    #[must_use]
    pub fn wanted(&self, device: &Device) -> Vec<Wanted> {
        let mut wanted: Vec<Wanted> = Vec::new();
        for rule in self.selecting(device) {
            for module in &rule.text.modules {
                if wanted.iter().all(|w| w.module != *module) {
                    wanted.push(Wanted {
                        module: module.clone(),
                        rule: rule.file.clone(),
                    });
                }
            }
        }
        wanted
    }

    /// The rules that select `device`, in their order.
    pub fn selecting(&self, device: &Device) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|rule| rule.selects(device))
    }

    /// The files in use, in their order.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// A sentence for each file that is not in use.
    #[must_use]
    pub fn errors(&self) -> &[String] {
        &self.errors
    }
}

impl Rule {
    /// The file that it stands in.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Its number in that file, from 1.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// The protocols that it is for, or nothing when it is for every device.
    #[must_use]
    pub fn protocols(&self) -> Option<&[Protocol]> {
        self.text.protocol.as_deref()
    }

    /// What it asks for.
    #[must_use]
    pub fn modules(&self) -> &[ModuleName] {
        &self.text.modules
    }

    fn selects(&self, device: &Device) -> bool {
        self.text.protocol.as_ref().is_none_or(|protocols| {
            let mut ports = device.ports.iter();
            ports.any(|port| protocols.contains(&port.protocol))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::device;

    const CORE: &str =
        include_str!("../../deploy/root/usr/lib/rdma-hotplug/rules.d/50-rdma-core.toml");

    fn wanted(rules: &Rules, protocols: &[Protocol]) -> Vec<String> {
        rules
            .wanted(&device(1, "d0", protocols))
            .into_iter()
            .map(|wanted| wanted.module.to_string())
            .collect()
    }

    #[test]
    fn the_shipped_rules_are_the_module_lists_of_rdma_core() {
        let mut rules = Rules::default();
        rules.add(Path::new("50-rdma-core.toml"), CORE);
        assert!(rules.errors().is_empty(), "{:?}", rules.errors());
        let every = ["ib_iser", "ib_uverbs", "rdma_ucm", "xprtrdma", "svcrdma"];
        for (protocol, more) in [
            (Protocol::Infiniband, &["ib_ipoib", "ib_umad"][..]),
            (Protocol::Opa, &["ib_ipoib", "ib_umad", "opa_vnic"]),
            (Protocol::Roce, &[]),
            (Protocol::Iwarp, &[]),
            (Protocol::Usnic, &[]),
            (Protocol::Unknown, &[]),
        ] {
            let expected = [&every[..], more].concat();
            assert_eq!(wanted(&rules, &[protocol]), expected, "{protocol:?}");
        }
    }

    #[test]
    fn a_port_of_another_protocol_adds_its_modules_once() {
        let mut rules = Rules::default();
        rules.add(Path::new("50-rdma-core.toml"), CORE);
        let mixed = wanted(
            &rules,
            &[Protocol::Roce, Protocol::Opa, Protocol::Infiniband],
        );
        let ipoib = mixed.iter().filter(|module| *module == "ib_ipoib").count();
        assert_eq!(ipoib, 1);
        assert!(mixed.contains(&"opa_vnic".to_owned()));
    }

    #[test]
    fn a_bad_file_is_refused_with_its_line_and_the_others_stay() {
        let mut rules = Rules::default();
        rules.add(
            Path::new("10-bad.toml"),
            "[[rule]]\nmodulse = [\"ib_core\"]\n",
        );
        rules.add(
            Path::new("11-bad.toml"),
            "[[rule]]\nmodules = [\"/tmp/x.ko\"]\n",
        );
        rules.add(
            Path::new("50-good.toml"),
            "[[rule]]\nmodules = [\"ib_core\"]\n",
        );
        assert_eq!(wanted(&rules, &[]), ["ib_core"]);
        assert_eq!(rules.errors().len(), 2);
        assert!(rules.errors()[0].contains("10-bad.toml"));
        assert!(
            rules.errors()[0].contains("line 2"),
            "{}",
            rules.errors()[0]
        );
        assert!(rules.errors()[0].contains("modulse"));
        assert!(rules.errors()[1].contains("/tmp/x.ko"));
    }
}
