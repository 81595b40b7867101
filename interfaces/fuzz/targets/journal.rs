//! The journal's reader: any bytes. What it takes for whole is what its records are written as,
//! and it never reads behind that.
#![no_main]

use interfaces::journal::{self, MAGIC, Reader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = Reader::new(bytes) else {
        return;
    };
    let records: Vec<_> = reader.by_ref().map_while(Result::ok).collect();
    let whole = usize::try_from(reader.whole()).unwrap();
    assert!(whole <= bytes.len());
    // A varint may be longer than it has to be, and a field may come twice.
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
    let read: Vec<_> = Reader::new(again.as_slice())
        .unwrap()
        .map_while(Result::ok)
        .collect();
    assert_eq!(read, records);
});
