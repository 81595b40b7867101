//! The journal on disk: the file `journal`, and the previous one, `journal.1`. An event is written
//! before the machine decides on it, and a decision before it is carried out, so that after a crash
//! at any moment the journal shows how far the work had got. Its size is bounded: a full file
//! becomes `journal.1`, and a new file begins with a checkpoint. Must never keep the orchestrator
//! from its work: if the journal cannot be written, the error is logged once and the orchestrator
//! continues without it.

pub mod replay;
pub mod story;
pub mod wire;

use std::fs::{self, File};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use interfaces::journal::{self, JournalError, MAGIC, Record, RecordReader, record::What};
use interfaces::log::Chain;

use crate::machine::Machine;
use replay::ReplayError;

/// The maximum size of the records behind a checkpoint, in bytes. If the checkpoint is larger, its
/// size is the maximum. The orchestrator reads all of these records again when it starts. There are
/// two files.
const MAX_LEN: u64 = 1024 * 1024;

/// The time until the orchestrator tries again to begin a file, in µs.
const RETRY: i64 = 60_000_000;

const NAME: &str = "journal";
const BEFORE: &str = "journal.1";
/// The name of a new file until its checkpoint is written.
const NEW: &str = "journal.new";

/// A reason why there is no state to continue from.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened, or it is not a journal.
    #[error("{}", .0.display())]
    File(PathBuf, #[source] JournalError),
    /// The records of the file cannot be replayed.
    #[error("{}", .0.display())]
    Replay(PathBuf, #[source] ReplayError),
}

/// The journal of a running orchestrator.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    file: Option<File>,
    len: u64,
    /// The number of those bytes up to the end of the checkpoint.
    checkpoint: u64,
    /// The time of the last attempt to begin a file, in µs of CLOCK_MONOTONIC.
    tried_at: i64,
    /// True if the last write failed, and the error has been logged.
    broken: bool,
}

/// A point in time, in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The time of CLOCK_MONOTONIC, on which decisions are based.
    pub monotonic: i64,
    /// The time of CLOCK_REALTIME, which is shown to users.
    pub realtime: i64,
}

impl Journal {
    /// Opens the journal in `directory` for writing, and returns the machine in its state after the
    /// last record. If there is none, [`Self::begin`] must be called before anything is written.
    #[must_use]
    pub fn open(directory: &Path) -> (Self, Option<Machine>) {
        let mut journal = Self {
            directory: directory.to_owned(),
            file: None,
            len: 0,
            checkpoint: 0,
            tried_at: 0,
            broken: false,
        };
        let machine = journal.resume().unwrap_or_else(|e| journal.begin_again(&e));
        (journal, machine)
    }

    /// Reads what is kept of a journal that this program cannot continue from, such as that of
    /// another version: only a pause, which a user began and has not ended. The detector sends the
    /// devices again.
    fn begin_again(&self, why: &Error) -> Option<Machine> {
        let why = Chain(why);
        let records = read(&self.directory.join(NAME)).ok();
        let records = records.into_iter().flat_map(|r| r.map_while(Result::ok));
        let Some(reason) = replay::paused(records) else {
            tracing::error!(
                "cannot continue from the journal, starting with an empty state: {why}"
            );
            return None;
        };
        tracing::error!("cannot continue from the journal, keeping only the pause: {why}");
        Some(Machine::in_pause(reason))
    }

    fn resume(&mut self) -> Result<Option<Machine>, Error> {
        let path = self.directory.join(NAME);
        let new = self.directory.join(NEW);
        let failed = |e: io::Error| Error::File(path.clone(), e.into());
        // A rotation was interrupted between its two renames.
        if !path.exists() && new.exists() {
            fs::rename(&new, &path).map_err(failed)?;
        }
        if !path.exists() {
            return Ok(None);
        }
        let mut reader = read(&path)?;
        let machine = replay::resume(reader.by_ref().map_while(Result::ok));
        let machine = machine.map_err(|e| Error::Replay(path.clone(), e))?;
        // An incomplete record at the end would hide all records that are written behind it.
        let mut file = File::options().write(true).open(&path).map_err(failed)?;
        file.set_len(reader.whole()).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        // Records behind a missing checkpoint cannot be replayed.
        if machine.is_some() {
            self.len = reader.whole();
            self.file = Some(file);
        }
        Ok(machine)
    }

    /// Begins a file whose first record is a checkpoint of `machine`. The current file becomes the
    /// previous one.
    pub fn begin(&mut self, machine: &Machine, times: Times) {
        self.tried_at = times.monotonic;
        let began = self.try_begin(machine, times);
        self.log(began);
    }

    fn try_begin(&mut self, machine: &Machine, times: Times) -> io::Result<()> {
        let new = self.directory.join(NEW);
        let path = self.directory.join(NAME);
        let mut bytes = MAGIC.to_vec();
        let checkpoint = wire::checkpoint(machine)?;
        bytes.extend(encode(times, What::Checkpoint(checkpoint)));
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        if path.exists() {
            fs::rename(&path, self.directory.join(BEFORE))?;
        }
        fs::rename(&new, &path)?;
        self.len = bytes.len() as u64;
        self.checkpoint = self.len;
        self.file = Some(file);
        Ok(())
    }

    /// Appends records.
    pub fn append(&mut self, times: Times, records: impl IntoIterator<Item = What>) {
        let Some(file) = &mut self.file else {
            return;
        };
        let bytes: Vec<u8> = records
            .into_iter()
            .flat_map(|what| encode(times, what))
            .collect();
        let written = file.write_all(&bytes);
        self.len = self.len.saturating_add(bytes.len() as u64);
        self.log(written);
    }

    /// Returns true if a file is open for writing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Returns true if a new file should be begun: the current file has reached its maximum size,
    /// or the last attempt to begin one failed some time ago. `now` is in µs of CLOCK_MONOTONIC.
    #[must_use]
    pub fn is_due(&self, now: i64) -> bool {
        match self.file {
            Some(_) => self.len.saturating_sub(self.checkpoint) >= MAX_LEN.max(self.checkpoint),
            None => now >= self.tried_at.saturating_add(RETRY),
        }
    }

    /// Closes the file and logs the error, if there is one. An incomplete record would hide all
    /// records behind it, so that after a failure nothing is written until a new file is begun.
    fn log(&mut self, outcome: io::Result<()>) {
        let broken = outcome.is_err();
        if let Err(e) = outcome {
            if !self.broken {
                tracing::error!(
                    "{}: cannot write the journal, which ends here: {e}",
                    self.directory.display()
                );
            }
            self.file = None;
        }
        self.broken = broken;
    }
}

/// Returns all records of the journal in `directory`, the oldest first. Reads them lazily.
pub fn history(directory: &Path) -> impl Iterator<Item = Record> {
    let files = [BEFORE, NAME].map(|name| directory.join(name));
    let read = files.into_iter().filter_map(|path| read(&path).ok());
    read.flat_map(|records| records.map_while(Result::ok))
}

/// Returns the records of one file, up to the first incomplete one.
///
/// # Errors
/// Fails if the file cannot be opened or is not a journal.
pub fn read(path: &Path) -> Result<RecordReader<BufReader<File>>, Error> {
    let opened = File::open(path).map_err(JournalError::from);
    opened
        .and_then(|file| RecordReader::new(BufReader::new(file)))
        .map_err(|e| Error::File(path.to_owned(), e))
}

fn encode(times: Times, what: What) -> Vec<u8> {
    journal::encode(&Record {
        monotonic_usec: times.monotonic,
        realtime_usec: times.realtime,
        what: Some(what),
    })
}

#[cfg(test)]
mod tests;
