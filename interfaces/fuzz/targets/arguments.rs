//! The decoder of arguments: a well-formed call whose parameters are any JSON object. It is
//! answered once, with a reply or with the name of the parameter that is wrong.
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
            // A key without a name is named as it is.
            assert!(!named.is_empty() || parameters.contains_key(""), "{call}");
        }
    }
});
