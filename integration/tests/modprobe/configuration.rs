//! Random configurations: files of `modprobe.d(5)` and kernel command lines with correct lines,
//! mistyped lines, and nonsense. Must never depend on anything but the generator that it is given.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::oracle::Script;
use fastrand::Rng;

/// Returns module trees: the complete one, and some with missing parts.
pub fn trees(real: &Path, at: &Path, rng: &mut Rng) -> Vec<PathBuf> {
    let without = |name: &str, absent: &[&str]| {
        let tree = at.join(name);
        fs::create_dir_all(&tree).unwrap();
        for entry in fs::read_dir(real).unwrap() {
            let file = entry.unwrap().file_name();
            if !absent.contains(&file.to_str().unwrap()) {
                symlink(real.join(&file), tree.join(&file)).unwrap();
            }
        }
        tree
    };
    let holes = without("holes", &["kernel"]);
    for line in fs::read_to_string(real.join("modules.dep"))
        .unwrap()
        .lines()
    {
        // One file in eight is missing.
        if rng.u8(..8) > 0 {
            let path = holes.join(line.split(':').next().unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }
    vec![
        real.to_owned(),
        real.to_owned(),
        holes,
        without("no-dependencies", &["modules.dep.bin"]),
        without("no-aliases", &["modules.alias.bin", "modules.symbols.bin"]),
        without("no-builtin", &["modules.builtin.bin", "modules.softdep"]),
        without("no-builtin-aliases", &["modules.builtin.alias.bin"]),
    ]
}

/// The words of one configuration: few, so that its lines are related.
struct Words {
    names: Vec<String>,
}

impl Words {
    fn random(modules: &[String], rng: &mut Rng) -> Self {
        let known = [
            "ib_core",
            "ib_uverbs",
            "rdma_ucm",
            "rdma_cm",
            "mlx5_ib",
            "mlx5_core",
            "ib_cm",
            "btrfs",
            "cifs",
            "xprtrdma",
            "virtio_pci",
            "configfs",
            "ib-core",
            "nosuch",
            "off",
        ];
        let mut names: Vec<String> = (0..6)
            .map(|_| (*rng.choice(&known).unwrap()).to_owned())
            .collect();
        names.extend((0..3).map(|_| rng.choice(modules).unwrap().clone()));
        names.extend(["aaa", "b-b", "c.d"].map(str::to_owned));
        Self { names }
    }

    fn name(&self, rng: &mut Rng) -> String {
        let mut name = rng.choice(&self.names).unwrap().clone();
        match rng.u8(..20) {
            0 => name = name.replace('_', "-"),
            1 => name.push_str(".x"),
            2 => name = name.to_uppercase(),
            3 => name.insert(0, '-'),
            4 => name.push('\r'),
            _ => {}
        }
        name
    }

    fn pattern(&self, rng: &mut Rng) -> String {
        let name = self.name(rng);
        let cut = rng.usize(..=name.len());
        let start = name.get(..cut).unwrap_or(&name);
        match rng.u8(..12) {
            0 => format!("{start}*"),
            1 => "*".to_owned(),
            2 => name.replacen('_', "?", 1),
            3 => name.replacen('_', "[_-]", 1),
            4 => format!("{start}[a-z]*"),
            5 => format!("{start}[!x]*"),
            6 => format!("{name}["),
            7 => format!("{name}]"),
            8 => format!("\\{name}"),
            _ => name,
        }
    }

    fn blank(rng: &mut Rng) -> &'static str {
        [
            " ", " ", " ", " ", " ", " ", "  ", "\t", " \t ", "\\\n", "\\\n ", "",
        ][rng.usize(..12)]
    }

    fn softdep(&self, rng: &mut Rng) -> String {
        let mut text = String::new();
        for _ in 0..rng.usize(..6) {
            let word = match rng.u8(..6) {
                0 | 1 => "pre:".to_owned(),
                2 => "post:".to_owned(),
                _ => self.name(rng),
            };
            text += &word;
            text += [" ", " ", " ", "  ", "\t", "\r", "\x0b"][rng.usize(..7)];
        }
        text
    }

    fn options(&self, rng: &mut Rng) -> String {
        let mut text = String::new();
        for _ in 0..rng.usize(..4) {
            let word =
                ["a=1", "b", "c=\"x y\"", "# no", "d=\\\\", "e=1,2\t", "f='"][rng.usize(..7)];
            text += word;
            text += Self::blank(rng);
        }
        text
    }

    fn line(&self, rng: &mut Rng) -> String {
        let blank = Self::blank(rng);
        let more = Self::blank(rng);
        let lead = if rng.u8(..15) == 0 { " " } else { "" };
        let pattern = self.pattern(rng);
        let line = match rng.u8(..20) {
            0..=3 => format!("alias{blank}{pattern}{more}{}", self.name(rng)),
            4..=6 => format!("blacklist{blank}{pattern}"),
            7..=10 => format!("options{blank}{pattern}{more}{}", self.options(rng)),
            11 | 12 => format!(
                "install{blank}{pattern}{more}/bin/x $CMDLINE_OPTS {}",
                self.name(rng)
            ),
            13 => format!("remove{blank}{pattern}{more}/bin/y"),
            14..=16 => format!("softdep{blank}{pattern}{more}{}", self.softdep(rng)),
            17 => format!("weakdep{blank}{pattern}{more}{}", self.name(rng)),
            18 => format!("#{pattern}"),
            _ => [
                "",
                "nonsense x",
                "Alias a b",
                "include /x",
                "alias",
                "\\",
                "options x",
            ][rng.usize(..7)]
            .to_owned(),
        };
        let end = [
            "\n", "\n", "\n", "\n", "\n", "\n", "\r\n", "\0\n", " \n", "\\\n",
        ][rng.usize(..10)];
        format!("{lead}{line}{end}")
    }

    fn command_line(&self, rng: &mut Rng) -> String {
        let mut text = String::new();
        for _ in 0..rng.usize(..8) {
            let name = self.name(rng);
            text += &match rng.u8(..12) {
                0..=2 => format!("{name}.a=1"),
                3 => format!("{name}.b"),
                4 => format!("{name}.c=\"x y\""),
                5 => format!("\"{name}.d=x y\""),
                6 | 7 => format!("modprobe.blacklist={name},{}", self.name(rng)),
                8 => format!("modprobe.blacklist=\"{name},{}\"", self.name(rng)),
                9 => "BOOT_IMAGE=/vmlinuz-6.12.1".to_owned(),
                10 => format!("{name}.e.f=1"),
                _ => ["\"", "quiet", "a\"b.c=1", ".x=1", "=", "x.=1"][rng.usize(..6)].to_owned(),
            };
            text += [" ", " ", " ", "  ", "\t", "\n"][rng.usize(..6)];
        }
        if rng.u8(..40) == 0 {
            text.insert_str(0, &"x".repeat(rng.usize(4_050..4_100)));
        }
        text
    }
}

/// Creates a random configuration in its own directory.
pub fn random(at: &Path, trees: &[PathBuf], modules: &[String], rng: &mut Rng) -> Script {
    let words = Words::random(modules, rng);
    let modprobe_d: Vec<PathBuf> = ["etc", "run", "usr"].map(|d| at.join(d)).to_vec();
    for directory in &modprobe_d {
        // A missing directory counts as an empty one.
        if rng.u8(..4) > 0 {
            fs::create_dir_all(directory).unwrap();
            files(directory, &words, rng);
        }
    }
    let command_line = at.join("cmdline");
    fs::create_dir_all(at).unwrap();
    fs::write(&command_line, words.command_line(rng)).unwrap();
    let mut names: BTreeSet<String> = words.names.iter().cloned().collect();
    names.extend((0..6).map(|_| words.name(rng)));
    names.extend((0..3).map(|_| words.pattern(rng)));
    Script {
        module_tree: rng.choice(trees).unwrap().clone(),
        modprobe_d,
        command_line,
        names: names.into_iter().collect(),
    }
}

fn files(directory: &Path, words: &Words, rng: &mut Rng) {
    let all = [
        "aa.conf",
        "mm.conf",
        "zz.conf",
        "modules.conf",
        "modules.softdep.conf",
        ".hidden.conf",
        "x.con",
        ".conf",
        "a.conf",
    ];
    for _ in 0..rng.usize(..4) {
        let path = directory.join(rng.choice(all).unwrap());
        let _ = fs::remove_file(&path);
        match rng.u8(..20) {
            0 => symlink("/dev/null", path).unwrap(),
            1 => symlink("/nonexistent", path).unwrap(),
            _ => {
                let lines: Vec<String> = (0..rng.usize(..10)).map(|_| words.line(rng)).collect();
                fs::write(path, lines.concat()).unwrap();
            }
        }
    }
}
