//! The orchestrator's journal as bytes (`proto/journal.proto`): records framed with their length
//! and a checksum, and read back up to the point where a crash cut them off. Must never accept a
//! record whose checksum does not match, and never trust a length beyond the end of the file.

use std::io::{self, Read};

use prost::Message;

pub use crate::generated::journal::*;

/// The bytes at the start of a journal.
pub const MAGIC: [u8; 8] = *b"RDMAHPJ1";
/// The longest record, in bytes: enough for the state with thousands of devices.
pub const MAX_RECORD_LEN: usize = 64 * 1024 * 1024;

const CRC_LEN: usize = 4;
/// The most bytes in the varint of a valid length.
const MOST_VARINT_BYTES: usize = 5;

/// The reason that reading a journal stops before the end of its file.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be read.
    #[error("cannot read the journal")]
    Io(#[from] io::Error),
    /// The file does not begin with the magic bytes.
    #[error("not a journal: it does not begin with RDMAHPJ1")]
    Magic,
    /// The length of a record is invalid, or its checksum does not match its bytes.
    #[error("the record at byte {0} is damaged")]
    Damaged(u64),
    /// The bytes of a record are complete but do not decode to a record.
    #[error("the record at byte {0} cannot be decoded")]
    Undecodable(u64, #[source] prost::DecodeError),
}

/// Returns a record with the framing of a journal.
#[must_use]
pub fn encode(record: &Record) -> Vec<u8> {
    let payload = record.encode_to_vec();
    let mut framed = Vec::with_capacity(payload.len() + MOST_VARINT_BYTES + CRC_LEN);
    // This cannot fail: a vector grows as needed.
    let _ = prost::encode_length_delimiter(payload.len(), &mut framed);
    framed.extend_from_slice(&payload);
    framed.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    framed
}

/// Reads a journal, record by record.
pub struct RecordReader<R> {
    from: R,
    /// The length of the part that was complete, in bytes.
    whole: u64,
    ended: bool,
}

impl<R: Read> RecordReader<R> {
    /// Starts reading: checks the magic bytes.
    ///
    /// # Errors
    /// Fails if the file is not a journal, or cannot be read.
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

    /// Returns the number of bytes, as far as the file was read, that are the magic bytes and
    /// complete records. The file is cut there before records are appended.
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
        // Reads as many bytes as the file has, and does not reserve what the length promises.
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

    /// Returns the length of the next record, and the number of bytes that encode it; nothing at
    /// the end of the file, or if the length is cut off.
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

impl<R: Read> Iterator for RecordReader<R> {
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
    fn written_records_are_read_back_unchanged() {
        let records = [
            record(1, ""),
            record(2, &"long".repeat(1000)),
            record(3, "x"),
        ];
        let bytes = journal(&records);
        let mut reader = RecordReader::new(bytes.as_slice()).unwrap();
        let read: Vec<Record> = reader.by_ref().map(Result::unwrap).collect();
        assert_eq!(read, records);
        assert_eq!(reader.whole(), bytes.len() as u64);
    }

    #[test]
    fn a_truncated_journal_has_every_record_before_the_cut() {
        let records = [record(1, "one"), record(2, "two"), record(3, "three")];
        let whole = journal(&records);
        for end in MAGIC.len()..whole.len() {
            let cut = whole.get(..end).unwrap();
            let mut reader = RecordReader::new(cut).unwrap();
            let read: Vec<Record> = reader.by_ref().map(Result::unwrap).collect();
            assert_eq!(read.as_slice(), records.get(..read.len()).unwrap());
            assert!(read.len() < records.len());
            assert_eq!(journal(&read).len() as u64, reader.whole(), "cut at {end}");
        }
        assert!(matches!(
            RecordReader::new([0u8; 7].as_slice()),
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
            let mut reader = RecordReader::new(changed.as_slice()).unwrap();
            let read: Vec<Record> = reader.by_ref().map_while(Result::ok).collect();
            assert_eq!(read.as_slice(), records.get(..1).unwrap(), "byte {at}");
        }
    }

    #[test]
    fn a_record_length_beyond_the_file_yields_no_record() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([0xff, 0xff, 0xff, 0x0f, 1, 2, 3]);
        let mut reader = RecordReader::new(bytes.as_slice()).unwrap();
        assert!(reader.next().is_none_or(|record| record.is_err()));
        assert_eq!(reader.whole(), MAGIC.len() as u64);
    }
}
