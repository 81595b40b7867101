//! The journal on disk: `journal`, and before it `journal.1`. Every event is written before it is
//! decided on and every decision before it is carried out, so that whatever the moment of a
//! crash, what is there says how far things were. Bounded: a full file becomes `journal.1`, and
//! a new one begins with a checkpoint. Must never keep the orchestrator from its work: where
//! nothing can be written, that is logged once and nothing is.

pub mod replay;
pub mod story;
pub mod wire;

use std::fs::{self, File};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use interfaces::journal::{self, JournalError, MAGIC, Reader, Record, record::What};
use interfaces::log::Chain;

use crate::machine::Machine;
use replay::ReplayError;

/// So many bytes of records stand behind a checkpoint, or as many as the checkpoint itself has
/// where that is more: each is read again when the orchestrator starts. There are two files.
const MAX_LEN: u64 = 1024 * 1024;

/// How long after one could not be begun the next file is tried, in µs.
const RETRY: i64 = 60_000_000;

const NAME: &str = "journal";
const BEFORE: &str = "journal.1";
/// A new file until it has its checkpoint.
const NEW: &str = "journal.new";

/// Why there is no state to go on with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or is no journal.
    #[error("{}", .0.display())]
    File(PathBuf, #[source] JournalError),
    /// What stands in it cannot be replayed.
    #[error("{}", .0.display())]
    Replay(PathBuf, #[source] ReplayError),
}

/// The journal of a running orchestrator.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    file: Option<File>,
    len: u64,
    /// How many bytes of that the checkpoint has.
    checkpoint: u64,
    /// When a file was tried to begin last, in µs of CLOCK_MONOTONIC.
    tried_at: i64,
    /// Whether nothing can be written, which was said.
    broken: bool,
}

/// When something is, in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Of CLOCK_MONOTONIC: what decides.
    pub monotonic: i64,
    /// Of CLOCK_REALTIME: for people.
    pub realtime: i64,
}

impl Journal {
    /// Opens the journal in `directory`, to be written on, with the machine as the last record
    /// leaves it. Without one, [`Self::begin`] has to be called before anything is written.
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

    /// What is kept of a journal that this program cannot go on from, as one that another version wrote:
    /// nothing but a pause, which a person began and has not ended. The detector tells the devices again.
    fn begin_again(&self, why: &Error) -> Option<Machine> {
        let why = Chain(why);
        let records = read(&self.directory.join(NAME)).ok();
        let records = records.into_iter().flat_map(|r| r.map_while(Result::ok));
        let Some(reason) = replay::paused(records) else {
            tracing::error!("cannot go on from the journal, beginning again: {why}");
            return None;
        };
        tracing::error!("cannot go on from the journal, keeping but the pause: {why}");
        Some(Machine::in_pause(reason))
    }

    fn resume(&mut self) -> Result<Option<Machine>, Error> {
        let path = self.directory.join(NAME);
        let new = self.directory.join(NEW);
        let failed = |e: io::Error| Error::File(path.clone(), e.into());
        // A rotation ended between its two renames.
        if !path.exists() && new.exists() {
            fs::rename(&new, &path).map_err(failed)?;
        }
        if !path.exists() {
            return Ok(None);
        }
        let mut reader = read(&path)?;
        let machine = replay::resume(reader.by_ref().map_while(Result::ok));
        let machine = machine.map_err(|e| Error::Replay(path.clone(), e))?;
        // What is behind the last whole record would hide all that is written.
        let mut file = File::options().write(true).open(&path).map_err(failed)?;
        file.set_len(reader.whole()).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        // Without its checkpoint nothing behind it would be of use.
        if machine.is_some() {
            self.len = reader.whole();
            self.file = Some(file);
        }
        Ok(machine)
    }

    /// Begins a file whose first record is a checkpoint of `machine`. What there was becomes the
    /// one before it.
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

    /// Writes records.
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

    /// Whether there is a file to write on.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Whether it is time for a new file: this one has grown as far as it may, or there has been
    /// none for a while. `now` is in µs of CLOCK_MONOTONIC.
    #[must_use]
    pub fn is_due(&self, now: i64) -> bool {
        match self.file {
            Some(_) => self.len.saturating_sub(self.checkpoint) >= MAX_LEN.max(self.checkpoint),
            None => now >= self.tried_at.saturating_add(RETRY),
        }
    }

    /// A half written record would hide all behind it: from the first failure on nothing is
    /// written until a new file is begun.
    fn log(&mut self, outcome: io::Result<()>) {
        let broken = outcome.is_err();
        if let Err(e) = outcome {
            if !self.broken {
                tracing::error!("{}: nothing more is kept: {e}", self.directory.display());
            }
            self.file = None;
        }
        self.broken = broken;
    }
}

/// Every record of the journal in `directory`, the oldest first, read as it is asked for.
pub fn history(directory: &Path) -> impl Iterator<Item = Record> {
    let files = [BEFORE, NAME].map(|name| directory.join(name));
    let read = files.into_iter().filter_map(|path| read(&path).ok());
    read.flat_map(|records| records.map_while(Result::ok))
}

/// The records of one file, as far as they are whole.
///
/// # Errors
/// When it cannot be opened or is no journal.
pub fn read(path: &Path) -> Result<Reader<BufReader<File>>, Error> {
    let opened = File::open(path).map_err(JournalError::from);
    opened
        .and_then(|file| Reader::new(BufReader::new(file)))
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
