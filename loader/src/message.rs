//! The messages between the serving process and the inserting process: one order and one result for
//! each module, each a bounded record of JSON. Pure. Must never accept a name, a path or a text
//! that is out of bounds, whichever of the two processes is compromised.

use interfaces::names::ModuleName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The maximum length of a record, in bytes. The longest path and the longest parameters, with each
/// byte written as a number, need half of that.
pub const MAX_LEN: usize = 64 << 10;
/// The maximum length of a module's parameters, in bytes. The kernel accepts a megabyte.
pub const MAX_PARAMETERS: usize = 4096;
/// The maximum length of a path, in bytes (`PATH_MAX`).
const MAX_PATH: usize = 4096;
/// The maximum length of a failure's message, in bytes. A control character may need six in JSON.
const MAX_SENTENCE: usize = 8192;

/// An order to insert a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The number that the result repeats.
    pub id: u64,
    /// The module.
    pub module: ModuleName,
    /// Its file, relative to the module tree.
    pub path: Vec<u8>,
    /// Its parameters.
    pub parameters: Vec<u8>,
}

/// The result of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The number of the order.
    pub id: u64,
    /// The outcome.
    pub outcome: Outcome,
}

/// The outcome of an insertion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The kernel accepted the module.
    Inserted,
    /// The module was live already.
    WasLive,
    /// The module was not inserted.
    Failed(Failure),
}

/// The reason that a module was not inserted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The errno, as in `errno(3)`.
    pub errno: i32,
    /// A message for people.
    pub message: String,
}

/// The reason that a record is not sent, or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The record is not a message of the other process.
    #[error("not a message between the loader's processes")]
    Malformed(#[from] serde_json::Error),
    /// A part of the record is too long.
    #[error("its {0} is longer than {1} bytes")]
    TooLong(&'static str, usize),
}

impl Order {
    /// Encodes the order as a record.
    ///
    /// # Errors
    /// Fails if a part of it is too long.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        self.check()?;
        encode(self)
    }

    /// Decodes the order in a record.
    ///
    /// # Errors
    /// Fails if the record does not contain an order, or contains one that is out of bounds.
    pub fn decode(record: &[u8]) -> Result<Self, MessageError> {
        let order: Self = decode(record)?;
        order.check()?;
        Ok(order)
    }

    fn check(&self) -> Result<(), MessageError> {
        within("path", self.path.len(), MAX_PATH)?;
        within("list of parameters", self.parameters.len(), MAX_PARAMETERS)
    }
}

impl Answer {
    /// Encodes the result as a record. Cuts a message that is too long.
    ///
    /// # Errors
    /// Fails if it cannot be written as JSON, which does not happen.
    pub fn encode(mut self) -> Result<Vec<u8>, MessageError> {
        if let Outcome::Failed(failure) = &mut self.outcome {
            let end = failure.message.floor_char_boundary(MAX_SENTENCE);
            failure.message.truncate(end);
        }
        encode(&self)
    }

    /// Decodes the result in a record.
    ///
    /// # Errors
    /// Fails if the record does not contain a result, or contains one that is out of bounds.
    pub fn decode(record: &[u8]) -> Result<Self, MessageError> {
        let answer: Self = decode(record)?;
        if let Outcome::Failed(failure) = &answer.outcome {
            within("sentence", failure.message.len(), MAX_SENTENCE)?;
        }
        Ok(answer)
    }
}

fn within(what: &'static str, len: usize, max: usize) -> Result<(), MessageError> {
    if len <= max {
        Ok(())
    } else {
        Err(MessageError::TooLong(what, max))
    }
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>, MessageError> {
    let record = serde_json::to_vec(message)?;
    within("record", record.len(), MAX_LEN)?;
    Ok(record)
}

fn decode<T: DeserializeOwned>(record: &[u8]) -> Result<T, MessageError> {
    within("record", record.len(), MAX_LEN)?;
    Ok(serde_json::from_slice(record)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(path: usize, parameters: usize) -> Order {
        Order {
            id: u64::MAX,
            module: ModuleName::parse(&"m".repeat(ModuleName::MAX_LEN)).unwrap(),
            path: vec![0xff; path],
            parameters: vec![0xff; parameters],
        }
    }

    fn failed(message: String) -> Answer {
        let failure = Failure { errno: 22, message };
        Answer {
            id: u64::MAX,
            outcome: Outcome::Failed(failure),
        }
    }

    #[test]
    fn the_largest_order_fits_into_a_record_and_is_decoded() {
        let largest = order(MAX_PATH, MAX_PARAMETERS);
        let record = largest.encode().unwrap();
        assert!(record.len() <= MAX_LEN);
        assert_eq!(Order::decode(&record).unwrap(), largest);
    }

    #[test]
    fn an_order_beyond_the_limits_is_neither_encoded_nor_decoded() {
        for (path, parameters) in [(MAX_PATH + 1, 0), (0, MAX_PARAMETERS + 1)] {
            let order = order(path, parameters);
            assert!(matches!(order.encode(), Err(MessageError::TooLong(..))));
            let record = serde_json::to_vec(&order).unwrap();
            assert!(matches!(
                Order::decode(&record),
                Err(MessageError::TooLong(..))
            ));
        }
    }

    #[test]
    fn an_order_with_an_invalid_module_name_is_refused() {
        for name in ["", "../evil", "/lib/x.ko", "a b", &"x".repeat(56)] {
            let record = format!(r#"{{"id":1,"module":{name:?},"path":[],"parameters":[]}}"#);
            assert!(Order::decode(record.as_bytes()).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_longest_message_fits_and_a_longer_one_is_cut_between_characters() {
        for message in ["\u{1}".repeat(MAX_SENTENCE + 1), "ü".repeat(MAX_SENTENCE)] {
            let record = failed(message.clone()).encode().unwrap();
            assert!(record.len() <= MAX_LEN, "{}", record.len());
            let Outcome::Failed(failure) = Answer::decode(&record).unwrap().outcome else {
                panic!("it failed");
            };
            assert_eq!(failure.message.len(), MAX_SENTENCE);
            assert!(message.starts_with(&failure.message));
        }
    }

    #[test]
    fn every_outcome_is_decoded_as_it_was_encoded() {
        for outcome in [
            Outcome::Inserted,
            Outcome::WasLive,
            failed("why".to_owned()).outcome,
        ] {
            let answer = Answer { id: 7, outcome };
            let record = answer.clone().encode().unwrap();
            assert_eq!(Answer::decode(&record).unwrap(), answer);
        }
    }

    #[test]
    fn a_damaged_record_is_an_error_or_a_valid_order_and_never_a_panic() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let good = order(20, 20).encode().unwrap();
        for _ in 0..2000 {
            let mut record = good.clone();
            record.truncate(random.usize(..=good.len()));
            for _ in 0..random.usize(..4) {
                if let Some(byte) = random.choice(record.iter_mut().collect::<Vec<_>>()) {
                    *byte = random.u8(..);
                }
            }
            if let Ok(order) = Order::decode(&record) {
                assert!(order.check().is_ok());
            }
            let _ = Answer::decode(&record);
        }
        let long = vec![b'['; MAX_LEN + 1];
        assert!(matches!(
            Order::decode(&long),
            Err(MessageError::TooLong("record", MAX_LEN))
        ));
        assert!(Order::decode(&vec![b'['; MAX_LEN]).is_err());
        assert!(
            Order::decode(br#"{"id":1,"module":"x","path":[],"parameters":[],"flags":1}"#).is_err()
        );
    }
}
