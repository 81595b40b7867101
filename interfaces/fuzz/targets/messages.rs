//! The fuzz target of the message reader: any bytes, cut into messages anywhere. There are never
//! more replies than messages, and an error always has a full name.
#![no_main]

use interfaces_fuzz::answers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let messages = bytes.split(|&byte| byte == 0).count();
    let answers = answers(bytes);
    assert!(
        answers.len() <= messages,
        "{} answers to {messages}",
        answers.len()
    );
    for answer in answers {
        if let Some(error) = answer.get("error") {
            assert!(error.as_str().unwrap().contains('.'), "{answer}");
        }
    }
});
