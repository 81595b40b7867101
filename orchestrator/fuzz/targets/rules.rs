//! The fuzz target of the rules: any text. A file is in use as a whole or not at all. If it is not,
//! the error names the file and, if it has a line, a line of the file. The valid file beside it is
//! always in use.
#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use orchestrator::rules::{Rules, Source, Sources};

fuzz_target!(|text: &str| {
    let source = |path: &str, text: &str| Source {
        path: PathBuf::from(path),
        text: Ok(text.to_owned()),
    };
    let good = "[[rule]]\nmodules = [\"ib_core\"]\n";
    let sources = Sources {
        rules: vec![source("10-any.toml", text), source("20-good.toml", good)],
        lists: vec![source("list.conf", text)],
    };
    let rules = Rules::read(&sources, &Rules::default());
    let files: Vec<&str> = rules.files().filter_map(|path| path.to_str()).collect();
    assert!(files.contains(&"20-good.toml"));
    for error in rules.errors() {
        let lines = text.matches('\n').count() + 1;
        assert!(
            error.line().is_none_or(|line| (1..=lines).contains(&line)),
            "{error}"
        );
        if error.file().to_str() == Some("10-any.toml") {
            assert!(!files.contains(&"10-any.toml"), "{error}");
        }
    }
});
