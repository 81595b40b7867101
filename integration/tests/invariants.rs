//! The rules of ARCHITECTURE.md for the source files themselves.

#![allow(
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// The paths that a pure file must not use.
const IMPURE: [&str; 10] = [
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::env",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::thread",
    "tokio",
    "rustix",
];
const UNSAFE: [&str; 4] = [
    "interfaces/src/activation.rs",
    "detector/src/trim.rs",
    "detector/src/netlink.rs",
    "loader/src/fork.rs",
];
const SERVICES: [&str; 3] = ["detector", "loader", "orchestrator"];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Returns all source files of the installed programs: the path from the top directory, and the
/// text.
fn sources() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    for directory in SERVICES.into_iter().chain(["interfaces"]) {
        collect(&top().join(directory).join("src"), &mut sources);
    }
    assert!(sources.len() > 30);
    sources
}

fn collect(directory: &Path, sources: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else {
            let name = path
                .strip_prefix(top())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            sources.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Returns the head of a file, in one line.
fn header(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Returns a file's text without its unit tests and comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn files_that_are_marked_pure_use_nothing_impure() {
    let (mut pure, mut all) = (0, 0);
    for (name, text) in sources() {
        if name.contains("/generated/") || name.contains("tests") {
            continue;
        }
        let lines = text.lines().count();
        all += lines;
        if !header(&text).contains("Pure") {
            continue;
        }
        pure += lines;
        for impure in IMPURE {
            assert!(!code(&text).contains(impure), "{name} uses {impure}");
        }
    }
    println!("{pure} of {all} lines are in pure files");
    assert!(pure * 2 > all, "{pure} of {all} lines are in pure files");
}

#[test]
fn unsafe_code_is_only_in_the_listed_files() {
    for (name, text) in sources() {
        let named = UNSAFE.contains(&name.as_str());
        assert_eq!(code(&text).contains("unsafe {"), named, "{name}");
    }
}

#[test]
fn services_depend_on_the_interfaces_and_never_on_each_other() {
    for directory in SERVICES.into_iter().chain(["interfaces"]) {
        let manifest = fs::read_to_string(top().join(directory).join("Cargo.toml")).unwrap();
        for other in SERVICES.into_iter().chain(["integration", "deploy"]) {
            let depends = manifest
                .lines()
                .any(|line| line.starts_with(&format!("{other}.")));
            assert!(!depends, "{directory} depends on {other}");
        }
        assert_eq!(
            manifest.contains("interfaces.workspace"),
            directory != "interfaces",
            "{directory}"
        );
    }
}

#[test]
fn no_installed_program_mentions_the_lab() {
    for (name, text) in sources() {
        for word in ["RDMA_HOTPLUG_LAB", "mock", "fake"] {
            assert!(!code(&text).contains(word), "{name}: {word}");
        }
    }
}

#[test]
fn every_file_has_a_header() {
    for (name, text) in sources() {
        let tests = name.ends_with("/tests.rs") || name.contains("/tests/");
        let header = header(&text);
        assert!(!header.is_empty(), "{name} has no header");
        // The headers of libraries and of tests use other words.
        let plain = tests || name.ends_with("main.rs");
        assert!(
            plain || header.to_lowercase().contains("must never"),
            "{name} does not say what it must never do"
        );
    }
}
