//! The language of comments, documents, messages and test names: words that make a reader look twice
//! are counted, and may be no more frequent than in the projects that this one learns from
//! (CONTRIBUTING.md).

#![allow(
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Phrases, and the number of them that 1,000 lines may have: the rates in sudo-rs, zincati, ntpd-rs
/// and systemd's oomd.
const PHRASES: [(&[&str], f64); 5] = [
    (
        &[
            "is told",
            "are told",
            "be told",
            "is said",
            "are said",
            "be said",
            "is asked",
            "are asked",
            "be asked",
        ],
        0.0,
    ),
    (
        &["somebody", "anybody", "nobody", "everybody", "whoever"],
        1.0,
    ),
    (&["that is none", "which is none", "that are none"], 0.4),
    (&["so many", "so often", "once more", "another one"], 0.8),
    (&["anew"], 0.0),
];
/// Words with which a doc comment should not open, because a noun or a verb is clearer.
const OPENINGS: [&str; 8] = [
    "What", "Who", "Whether", "Where", "How", "When", "Which", "Whose",
];
/// The share of doc comments that may open with one of them.
const MAX_OPENINGS: f64 = 0.04;

/// The lines of one kind of text, each with its file.
struct Text {
    kind: &'static str,
    lines: Vec<(String, String)>,
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Returns the tracked text files of the project, as paths from the top.
fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(top())
        .output()
        .unwrap();
    assert!(listed.status.success(), "not a clone of the project");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let ours = |path: &&str| {
        !["/generated/", "/corpus/", "/fixtures/", "org.varlink.certification"]
            .iter()
            .any(|part| path.contains(part))
            // The list of words is in it.
            && !path.ends_with("language.rs")
    };
    listed.lines().filter(ours).map(str::to_owned).collect()
}

/// Returns the comments, documents, messages and test names.
fn texts() -> [Text; 4] {
    let kinds = ["comments", "documents", "messages", "test names"];
    let mut texts = kinds.map(|kind| Text {
        kind,
        lines: Vec::new(),
    });
    for path in files() {
        let Ok(text) = fs::read_to_string(top().join(&path)) else {
            continue;
        };
        let in_tests = path.contains("tests");
        let mut is_test = false;
        for line in text.lines() {
            let line = line.trim();
            let (kind, line) = if path.ends_with(".md") || path.contains("/man/") {
                (1, line.to_owned())
            } else if path.ends_with(".rs") {
                let name = line.strip_prefix("fn ").or(line.strip_prefix("async fn "));
                match name {
                    _ if line.starts_with("//") => (0, line.to_owned()),
                    Some(name) if std::mem::take(&mut is_test) => {
                        (3, name.split('(').next().unwrap().replace('_', " "))
                    }
                    _ if line.starts_with("#[test]") || line.starts_with("#[tokio::test") => {
                        is_test = true;
                        continue;
                    }
                    _ if in_tests => continue,
                    _ => (2, literals(line)),
                }
            } else if line.starts_with('#') {
                (0, line.to_owned())
            } else {
                continue;
            };
            if let Some(text) = texts.get_mut(kind).filter(|_| !line.is_empty()) {
                text.lines.push((path.clone(), line));
            }
        }
    }
    texts
}

/// Returns the string literals in a line of code that read like sentences.
fn literals(line: &str) -> String {
    let parts = line.split('"').skip(1).step_by(2);
    let sentences = parts.filter(|part| part.contains(' '));
    sentences.collect::<Vec<_>>().join(" ")
}

/// Returns true if a line contains the phrase as whole words.
fn has(line: &str, phrase: &str) -> bool {
    line.match_indices(phrase).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + phrase.len()..);
        let after = after.and_then(|text| text.chars().next());
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

#[test]
fn words_that_make_a_reader_look_twice_are_as_rare_as_elsewhere() {
    let mut wrong = Vec::new();
    for text in texts() {
        assert!(text.lines.len() > 100, "{}", text.kind);
        for (phrases, most) in PHRASES {
            let mut found = Vec::new();
            for (path, line) in &text.lines {
                let lower = line.to_lowercase();
                if phrases.iter().any(|phrase| has(&lower, phrase)) {
                    found.push(format!("{path}: {line}"));
                }
            }
            let thousands = text.lines.len() as f64 / 1_000.0;
            let rate = found.len() as f64 / thousands;
            println!("{}: {phrases:?} {rate:.1} per 1,000 lines", text.kind);
            if rate > most {
                wrong.append(&mut found);
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn doc_comments_open_with_a_noun_or_a_verb() {
    let (mut all, mut wrong) = (0, Vec::new());
    for path in files().iter().filter(|path| path.ends_with(".rs")) {
        let text = fs::read_to_string(top().join(path)).unwrap();
        let mut inside = false;
        for line in text.lines().map(str::trim) {
            let doc = line.strip_prefix("///").or(line.strip_prefix("//!"));
            let opens = doc.is_some() && !inside;
            inside = doc.is_some();
            if !opens {
                continue;
            }
            all += 1;
            let first = doc.unwrap_or_default().split_whitespace().next();
            if first.is_some_and(|word| OPENINGS.contains(&word)) {
                wrong.push(format!("{path}: {line}"));
            }
        }
    }
    println!("{} of {all} doc comments", wrong.len());
    assert!(
        wrong.len() as f64 <= f64::from(all) * MAX_OPENINGS,
        "\n{}",
        wrong.join("\n")
    );
}
