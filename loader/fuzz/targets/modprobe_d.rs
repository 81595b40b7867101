//! Fuzzes modprobe.d(5). The input is any file. Plans are made with it for modules of a real kernel
//! and for words of the file. Each plan terminates, contains the requested module, and has no
//! cyclic order.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use loader::index::Index;
use loader::modprobe_d::Config;
use loader::plan::{Indexes, Planner};

static INDEXES: LazyLock<Indexes> = LazyLock::new(|| {
    let parse = |bytes: &[u8]| Index::parse(bytes.to_vec()).ok();
    Indexes {
        dependencies: parse(include_bytes!(
            "../../tests/fixtures/modules/modules.dep.bin"
        )),
        aliases: parse(include_bytes!(
            "../../tests/fixtures/modules/modules.alias.bin"
        )),
        builtin: parse(include_bytes!(
            "../../tests/fixtures/modules/modules.builtin.bin"
        )),
        ..Indexes::default()
    }
});

fuzz_target!(|bytes: &[u8]| {
    let mut config = Config::default();
    config.add_file(Path::new("x.conf"), bytes);
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
    assert!(config.problems.len() <= lines);
    let words = bytes.split(|byte| byte.is_ascii_whitespace()).take(4);
    for name in words.chain([&b"ib_uverbs"[..], b"xprtrdma"]) {
        for merge_softdeps in [false, true] {
            let planner = Planner {
                indexes: &INDEXES,
                config: &config,
                exists: &|_| true,
                admit: &|_| true,
                merge_softdeps,
            };
            let Ok(found) = planner.look_up(name) else {
                continue;
            };
            for found in found.iter().take(4) {
                if let Ok(plan) = planner.plan(found) {
                    let mut required = plan.steps.iter().filter(|step| step.required);
                    assert!(required.any(|step| step.module == plan.module));
                    for (at, step) in plan.steps.iter().enumerate() {
                        assert!(step.after.iter().all(|earlier| *earlier < at));
                    }
                }
            }
        }
    }
});
