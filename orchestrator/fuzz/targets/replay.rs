//! The fuzz target of the replay: any bytes as a journal. The readable records are processed
//! without a panic, and the machine is the same after it is read from its own checkpoint.
#![no_main]

use interfaces::journal::RecordReader;
use libfuzzer_sys::fuzz_target;
use orchestrator::journal::{replay, wire};

fuzz_target!(|bytes: &[u8]| {
    let Ok(reader) = RecordReader::new(bytes) else {
        return;
    };
    let records = reader.map_while(Result::ok);
    if let Ok(Some(machine)) = replay::resume(records) {
        let checkpoint = wire::checkpoint(&machine).unwrap();
        let again = wire::machine(&checkpoint).unwrap();
        assert_eq!(wire::checkpoint(&again).unwrap(), checkpoint);
    }
});
