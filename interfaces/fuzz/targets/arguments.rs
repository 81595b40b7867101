//! The fuzz target of the argument decoder: a well-formed call with any JSON object as its
//! parameters. The service sends exactly one message in return: a reply, or an error that names the
//! invalid parameter.
#![no_main]

use interfaces_fuzz::answers;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};

fuzz_target!(|bytes: &[u8]| {
    let Ok(parameters) = serde_json::from_slice::<Map<String, Value>>(bytes) else {
        return;
    };
    for method in ["f.Load", "f.List", "f.Wait"] {
        let call = json!({ "method": method, "parameters": parameters });
        let answers = answers(format!("{call}\0").as_bytes());
        assert_eq!(answers.len(), 1, "{call}: {answers:?}");
        if let Some(error) = answers[0].get("error") {
            assert_eq!(error, "org.varlink.service.InvalidParameter", "{call}");
            let named = answers[0]["parameters"]["parameter"].as_str().unwrap();
            // A parameter with an empty key is reported with an empty name.
            assert!(!named.is_empty() || parameters.contains_key(""), "{call}");
        }
    }
});
