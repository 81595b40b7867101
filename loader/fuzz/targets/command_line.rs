//! Fuzzes the kernel command line with arbitrary bytes. The parser returns only text that is in the
//! line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::command_line::{MODPROBE_READS, Setting, kernel_blacklists, settings};

fuzz_target!(|bytes: &[u8]| {
    let read = &bytes[..bytes.len().min(MODPROBE_READS)];
    let stands_in = |line: &[u8], word: &[u8]| {
        word.is_empty() || line.windows(word.len()).any(|window| window == word)
    };
    for setting in settings(bytes) {
        match setting {
            Setting::Option { module, option } => {
                assert!(stands_in(read, &module));
                // A quote may have moved from the word to its value.
                let bare: Vec<u8> = option.iter().copied().filter(|&b| b != b'"').collect();
                let line: Vec<u8> = read.iter().copied().filter(|&b| b != b'"').collect();
                assert!(stands_in(&line, &bare));
            }
            Setting::Blacklist(module) => {
                let bare: Vec<u8> = module.iter().copied().filter(|&b| b != b'"').collect();
                let line: Vec<u8> = read.iter().copied().filter(|&b| b != b'"').collect();
                assert!(stands_in(&line, &bare));
            }
        }
    }
    for module in kernel_blacklists(bytes).concat() {
        assert!(!module.is_empty() && stands_in(bytes, &module));
    }
});
