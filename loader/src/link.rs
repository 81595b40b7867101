//! The socket between the serving process and the inserting process: whole records in both
//! directions. Must never interpret a record.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use crate::message::MAX_LEN;

/// One end of the socket. Threads may share it: a record is sent and received whole.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    /// Wraps the end that `fork` created.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends one record. Blocks while the other end has too many unread records.
    ///
    /// # Errors
    /// Fails if the other process has ended.
    pub fn send(&self, record: &[u8]) -> io::Result<()> {
        // NOSIGNAL: the end of the other process is an error here, not a SIGPIPE that kills this
        // one.
        loop {
            match send(&self.0, record, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Waits for the next record. Returns `None` if the other process has ended or will send no
    /// more.
    ///
    /// # Errors
    /// Fails if the record is longer than [`MAX_LEN`], or if the socket fails.
    pub fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut record = vec![0; MAX_LEN + 1];
        let len = loop {
            match recv(&self.0, record.as_mut_slice(), RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                // The other process ended with unread records.
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                received => break received?.0,
            }
        };
        if len > MAX_LEN {
            return Err(io::ErrorKind::InvalidData.into());
        }
        record.truncate(len);
        Ok((len > 0).then_some(record))
    }

    /// Stops sending: the other end receives the records in transit, and then the end of the
    /// stream.
    pub fn close(&self) {
        // This fails if the other process has ended already.
        let _ = shutdown(&self.0, Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (Link, Link) {
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (Link::new(pair.0), Link::new(pair.1))
    }

    #[test]
    fn records_arrive_one_by_one_before_the_end() {
        let (ours, theirs) = pair();
        ours.send(b"one").unwrap();
        ours.send(&vec![b'x'; MAX_LEN]).unwrap();
        ours.close();
        assert_eq!(theirs.receive().unwrap().unwrap(), b"one");
        assert_eq!(theirs.receive().unwrap().unwrap().len(), MAX_LEN);
        assert!(theirs.receive().unwrap().is_none());
        theirs.send(b"answer").unwrap();
        assert_eq!(ours.receive().unwrap().unwrap(), b"answer");
    }

    #[test]
    fn a_record_that_is_too_long_is_an_error() {
        let (ours, theirs) = pair();
        ours.send(&vec![b'x'; MAX_LEN + 1]).unwrap();
        assert!(theirs.receive().is_err());
    }

    #[test]
    fn a_closed_peer_is_an_error_for_the_sender_and_the_end_for_the_receiver() {
        let (ours, theirs) = pair();
        theirs.send(b"last").unwrap();
        drop(theirs);
        assert!(ours.send(b"x").is_err());
        while let Some(record) = ours.receive().unwrap() {
            assert_eq!(record, b"last");
        }
    }
}
