//! The fuzz target of the journal's reader: any bytes. The records that it accepts are written
//! again and read back the same, and it never reads past the bytes that it reports as whole.
#![no_main]

use interfaces::journal::{self, MAGIC, RecordReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = RecordReader::new(bytes) else {
        return;
    };
    let records: Vec<_> = reader.by_ref().map_while(Result::ok).collect();
    let whole = usize::try_from(reader.whole()).unwrap();
    assert!(whole <= bytes.len());
    // A varint may be longer than necessary, and a field may appear twice.
    let written: usize = records
        .iter()
        .map(|record| journal::encode(record).len())
        .sum();
    assert!(
        MAGIC.len() + written <= whole,
        "{written} bytes, {whole} whole"
    );
    let mut again = MAGIC.to_vec();
    again.extend(records.iter().flat_map(journal::encode));
    let read: Vec<_> = RecordReader::new(again.as_slice())
        .unwrap()
        .map_while(Result::ok)
        .collect();
    assert_eq!(read, records);
});
