//! Fuzzes the index reader. The input is a length, a text of that length, and a file. For any file,
//! each search terminates, and returns only values that are in the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loader::index::Index;

fuzz_target!(|bytes: &[u8]| {
    let Some((&len, rest)) = bytes.split_first() else {
        return;
    };
    let Some((text, file)) = rest.split_at_checked(usize::from(len)) else {
        return;
    };
    let Ok(index) = Index::parse(file.to_vec()) else {
        return;
    };
    let stands_in_it =
        |value: &[u8]| value.is_empty() || file.windows(value.len()).any(|window| window == value);
    if let Ok(Some(value)) = index.find(text) {
        assert!(stands_in_it(value));
    }
    if let Ok(values) = index.matches(text) {
        assert!(values.first().is_none_or(|value| stands_in_it(value)));
    }
});
