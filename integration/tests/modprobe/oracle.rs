//! libkmod of the guest tree. The guest's own C library runs it, so the host's may be any. Must
//! never get a configuration that the planner does not get.

#![allow(dead_code, reason = "the tests and the benchmark each use a part")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use loader::snapshot::{Semantics, Sources};
use tempfile::TempDir;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LINKER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// The program `integration/modprobe/oracle.c`.
pub struct Oracle {
    tree: PathBuf,
    dir: TempDir,
}

/// A configuration, and the names to look up in it.
pub struct Script {
    pub module_tree: PathBuf,
    pub modprobe_d: Vec<PathBuf>,
    pub command_line: PathBuf,
    pub names: Vec<String>,
}

impl Script {
    /// Returns the guest's own configuration.
    pub fn of_the_guest(oracle: &Oracle) -> Self {
        let at = |path: &str| oracle.root().join(path);
        Self {
            module_tree: oracle.module_tree(),
            modprobe_d: vec![at("etc/modprobe.d"), at("usr/lib/modprobe.d")],
            command_line: PathBuf::from("/dev/null"),
            names: Vec::new(),
        }
    }

    pub fn sources(&self) -> Sources {
        Sources {
            root: None,
            module_tree: self.module_tree.clone(),
            modprobe_d: self.modprobe_d.clone(),
            command_line: self.command_line.clone(),
            reader: Semantics::Modprobe,
        }
    }

    /// Returns all files that are not in the guest tree, to explain a difference.
    pub fn told(&self) -> String {
        let mut told = format!("{}\n", self.module_tree.display());
        let line = fs::read(&self.command_line).unwrap_or_default();
        told += &format!("command line: {:?}\n", String::from_utf8_lossy(&line));
        for directory in &self.modprobe_d {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                let text = fs::read(&path).unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                told += &format!("{}: {text:?}\n", path.display());
            }
        }
        told
    }
}

impl Oracle {
    /// Builds the program.
    pub fn build() -> Self {
        let tree = std::env::var_os("RDMA_HOTPLUG_TREE");
        let tree = tree.expect("integration/run-tests runs this rung, and says where the tree is");
        let oracle = Self {
            tree: tree.into(),
            dir: TempDir::new().unwrap(),
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("modprobe/oracle.c");
        let status = Command::new("cc")
            .args(["-O2", "-Wall", "-Werror", "-rdynamic", "-o"])
            .arg(oracle.program())
            .arg(source)
            .arg(oracle.root().join(LIBRARIES).join("libkmod.so.2"))
            .args(["-Wl,--allow-shlib-undefined", "-ldl"])
            .status()
            .unwrap();
        assert!(status.success(), "the oracle cannot be built");
        oracle
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("oracle")
    }

    pub fn root(&self) -> PathBuf {
        self.tree.join("root")
    }

    /// Returns the release of the guest's kernel.
    pub fn release(&self) -> String {
        let mut releases = fs::read_dir(self.root().join("usr/lib/modules")).unwrap();
        let release = releases.next().unwrap().unwrap().file_name();
        release.into_string().unwrap()
    }

    pub fn module_tree(&self) -> PathBuf {
        self.root().join("usr/lib/modules").join(self.release())
    }

    /// Returns a command that runs a program of the guest with the guest's libraries.
    fn guest(&self, program: &Path) -> Command {
        let mut command = Command::new(self.root().join(LINKER));
        command
            .arg("--library-path")
            .arg(self.root().join(LIBRARIES))
            .arg("--argv0")
            .arg("modprobe")
            .arg(program);
        command
    }

    /// Returns the results for all names of all scripts, in order.
    pub fn answers(&self, scripts: &[Script]) -> Vec<String> {
        let mut input = Vec::new();
        for script in scripts {
            let paths = [&script.module_tree, &script.command_line].into_iter();
            let paths = paths.chain(&script.modprobe_d).map(|p| p.to_str().unwrap());
            let paths: Vec<&str> = paths.collect();
            writeln!(input, "C {}", paths.join(" ")).unwrap();
            for name in &script.names {
                writeln!(input, "Q {name}").unwrap();
            }
        }
        let output = self.run(&input);
        let mut answers = output.split("== ").skip(1);
        let count: usize = scripts.iter().map(|script| script.names.len()).sum();
        let names = scripts.iter().flat_map(|script| &script.names);
        let answers: Vec<String> = names
            .map(|name| {
                let answer = answers
                    .next()
                    .unwrap_or_else(|| panic!("{name:?}: no answer"));
                let answer = answer.strip_prefix(name.as_str()).unwrap();
                answer.strip_prefix('\n').unwrap().to_owned()
            })
            .collect();
        assert_eq!(answers.len(), count);
        answers
    }

    /// Returns the least time for the plans of all names, in ns.
    pub fn nanoseconds(&self, script: &Script, times: usize) -> u64 {
        let mut input = Vec::new();
        let paths = [&script.module_tree, &script.command_line].into_iter();
        let paths = paths.chain(&script.modprobe_d).map(|p| p.to_str().unwrap());
        let paths: Vec<&str> = paths.collect();
        writeln!(input, "C {}\nT {times}", paths.join(" ")).unwrap();
        writeln!(input, "{}", script.names.join("\n")).unwrap();
        self.run(&input).trim().parse().unwrap()
    }

    fn run(&self, input: &[u8]) -> String {
        // The input is a file, because two full pipes would block each other.
        let path = self.dir.path().join("input");
        fs::write(&path, input).unwrap();
        let output = self
            .guest(&self.program())
            .stdin(File::open(&path).unwrap())
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "the oracle: {}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns the output of the guest's `modprobe -D` for a name, with paths as seen inside the
    /// guest.
    pub fn modprobe(&self, name: &str) -> String {
        let at = |path: &str| self.root().join(path);
        let output = self
            .guest(&at("usr/bin/kmod"))
            .arg("-D")
            .arg("-d")
            .arg(self.root())
            .arg("-S")
            .arg(self.release())
            .arg("-C")
            .arg(at("etc/modprobe.d"))
            .arg("-C")
            .arg(at("usr/lib/modprobe.d"))
            .arg(name)
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let root = self.root().display().to_string();
        String::from_utf8(output.stdout).unwrap().replace(&root, "")
    }
}
