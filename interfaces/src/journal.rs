//! The orchestrator's journal as bytes (`proto/journal.proto`): records framed with their length
//! and a checksum, and read again up to where a crash has torn them off. Must never take what
//! the checksum does not bear out, and never believe a length that is not there.

use std::io::{self, Read};

use prost::Message;

pub use crate::generated::journal::*;

/// What a journal begins with.
pub const MAGIC: [u8; 8] = *b"RDMAHPJ1";
/// The longest record, in bytes: the state with thousands of devices has room.
pub const MAX_RECORD_LEN: usize = 64 * 1024 * 1024;

const CRC_LEN: usize = 4;
/// A varint of a length that is allowed has no more bytes.
const MOST_VARINT_BYTES: usize = 5;

/// Why a journal ends before its file does.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read.
    #[error("cannot read the journal")]
    Io(#[from] io::Error),
    /// It does not begin as one.
    #[error("not a journal: it does not begin with RDMAHPJ1")]
    Magic,
    /// A record's length is none, or its checksum is not that of its bytes.
    #[error("the record at byte {0} is damaged")]
    Damaged(u64),
    /// A record's bytes are whole and are no record.
    #[error("the record at byte {0} cannot be decoded")]
    Undecodable(u64, #[source] prost::DecodeError),
}

/// A record as it stands in a journal.
#[must_use]
pub fn encode(record: &Record) -> Vec<u8> {
    let payload = record.encode_to_vec();
    let mut framed = Vec::with_capacity(payload.len() + MOST_VARINT_BYTES + CRC_LEN);
    // A vector grows as far as is needed.
    let _ = prost::encode_length_delimiter(payload.len(), &mut framed);
    framed.extend_from_slice(&payload);
    framed.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    framed
}

/// Reads a journal, record by record.
pub struct Reader<R> {
    from: R,
    /// The bytes of everything that was whole.
    whole: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Begins to read.
    ///
    /// # Errors
    /// When it is no journal, or cannot be read.
    pub fn new(mut from: R) -> Result<Self, JournalError> {
        let mut magic = [0; MAGIC.len()];
        match from.read_exact(&mut magic) {
            Ok(()) if magic == MAGIC => Ok(Self {
                from,
                whole: MAGIC.len() as u64,
                ended: false,
            }),
            Ok(()) => Err(JournalError::Magic),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(JournalError::Magic),
            Err(e) => Err(e.into()),
        }
    }

    /// How many bytes of the file are whole records, as far as it was read. What is behind them
    /// is cut off before a journal is written on.
    #[must_use]
    pub fn whole(&self) -> u64 {
        self.whole
    }

    fn record(&mut self) -> Result<Option<Record>, JournalError> {
        let damaged = JournalError::Damaged(self.whole);
        let Some((len, prefix)) = self.length()? else {
            return Ok(None);
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > MAX_RECORD_LEN {
            return Err(damaged);
        }
        // As much as is there, and not as much as is promised.
        let mut framed = Vec::new();
        (&mut self.from)
            .take((len + CRC_LEN) as u64)
            .read_to_end(&mut framed)?;
        let Some((payload, crc)) = framed.split_at_checked(len) else {
            return Ok(None);
        };
        let Ok(crc) = <[u8; CRC_LEN]>::try_from(crc) else {
            return Ok(None);
        };
        if crc32fast::hash(payload) != u32::from_le_bytes(crc) {
            return Err(damaged);
        }
        let record =
            Record::decode(payload).map_err(|e| JournalError::Undecodable(self.whole, e))?;
        self.whole += (prefix + len + CRC_LEN) as u64;
        Ok(Some(record))
    }

    /// The next record's length, and of how many bytes that is; nothing at the end, or where it
    /// is torn off.
    fn length(&mut self) -> Result<Option<(u64, usize)>, JournalError> {
        let mut length = 0;
        for at in 0..MOST_VARINT_BYTES {
            let mut byte = [0];
            if self.from.read(&mut byte)? == 0 {
                return Ok(None);
            }
            let [byte] = byte;
            length |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(Some((length, at + 1)));
            }
        }
        Err(JournalError::Damaged(self.whole))
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Record, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let record = self.record().transpose();
        self.ended = !matches!(record, Some(Ok(_)));
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: i64, status: &str) -> Record {
        let kind = Some(decision::Kind::Started(status.to_owned()));
        Record {
            monotonic_usec: at,
            realtime_usec: at + 1,
            what: Some(record::What::Decision(Decision { kind })),
        }
    }

    fn journal(records: &[Record]) -> Vec<u8> {
        let encoded = records.iter().flat_map(encode);
        MAGIC.into_iter().chain(encoded).collect()
    }

    #[test]
    fn what_was_written_is_read_again() {
        let records = [
            record(1, ""),
            record(2, &"long".repeat(1000)),
            record(3, "x"),
        ];
        let bytes = journal(&records);
        let mut reader = Reader::new(bytes.as_slice()).unwrap();
        let read: Vec<Record> = reader.by_ref().map(Result::unwrap).collect();
        assert_eq!(read, records);
        assert_eq!(reader.whole(), bytes.len() as u64);
    }

    #[test]
    fn a_journal_cut_anywhere_has_every_record_before_the_cut() {
        let records = [record(1, "one"), record(2, "two"), record(3, "three")];
        let whole = journal(&records);
        for end in MAGIC.len()..whole.len() {
            let cut = whole.get(..end).unwrap();
            let mut reader = Reader::new(cut).unwrap();
            let read: Vec<Record> = reader.by_ref().map(Result::unwrap).collect();
            assert_eq!(read.as_slice(), records.get(..read.len()).unwrap());
            assert!(read.len() < records.len());
            assert_eq!(journal(&read).len() as u64, reader.whole(), "cut at {end}");
        }
        assert!(matches!(
            Reader::new([0u8; 7].as_slice()),
            Err(JournalError::Magic)
        ));
    }

    #[test]
    fn a_changed_byte_ends_the_journal_before_its_record() {
        let records = [record(1, "one"), record(2, "two")];
        let whole = journal(&records);
        let first = journal(records.get(..1).unwrap()).len();
        for at in first..whole.len() {
            let mut changed = whole.clone();
            *changed.get_mut(at).unwrap() ^= 0x10;
            let mut reader = Reader::new(changed.as_slice()).unwrap();
            let read: Vec<Record> = reader.by_ref().map_while(Result::ok).collect();
            assert_eq!(read.as_slice(), records.get(..1).unwrap(), "byte {at}");
        }
    }

    #[test]
    fn a_length_that_is_not_there_takes_no_memory() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([0xff, 0xff, 0xff, 0x0f, 1, 2, 3]);
        let mut reader = Reader::new(bytes.as_slice()).unwrap();
        assert!(reader.next().is_none_or(|record| record.is_err()));
        assert_eq!(reader.whole(), MAGIC.len() as u64);
    }
}
