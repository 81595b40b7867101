//! The differences between the expected records and those found, one line per field. Must never
//! take one record for another: the index identifies a device, and the name a function.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Returns all differences. The result is empty if there are none.
pub fn between(expected: &Value, found: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (list, key) in [("devices", "index"), ("functions", "name")] {
        let (expected, found) = (by(key, &expected[list]), by(key, &found[list]));
        let all: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
        for record in all {
            let place = format!("{list}[{record}]");
            fields(&place, expected.get(record), found.get(record), &mut lines);
        }
    }
    lines
}

fn by(key: &str, records: &Value) -> BTreeMap<String, Value> {
    let records = records.as_array().expect("a list of records").clone();
    let count = records.len();
    let named: BTreeMap<String, Value> = records
        .into_iter()
        .map(|record| (record[key].to_string(), record))
        .collect();
    assert_eq!(named.len(), count, "two records with the same {key}");
    named
}

fn fields(place: &str, expected: Option<&Value>, found: Option<&Value>, lines: &mut Vec<String>) {
    match (expected, found) {
        (Some(Value::Object(expected)), Some(Value::Object(found))) => {
            let all: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
            for key in all {
                let place = format!("{place}.{key}");
                fields(&place, expected.get(key), found.get(key), lines);
            }
        }
        (Some(Value::Array(expected)), Some(Value::Array(found))) => {
            for at in 0..expected.len().max(found.len()) {
                let place = format!("{place}[{at}]");
                fields(&place, expected.get(at), found.get(at), lines);
            }
        }
        (expected, found) if expected == found => {}
        (expected, found) => {
            let text = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
            lines.push(format!(
                "{place}: expected {}, found {}",
                text(expected),
                text(found)
            ));
        }
    }
}
