//! One request to the kernel, and its result. Responsible for the order in which a device is read:
//! data that cannot hang is read first, so that a hanging device is published with it. Must never
//! judge a result.

use std::collections::BTreeMap;
use std::sync::Arc;

use interfaces::names::DeviceName;

use super::workers::Shared;
use crate::netlink::{RdmaSocket, RequestError};
use crate::nldev::{NldevError, NldevPort, Query};
use crate::reading::{Progress, Reading, Step};
use crate::refusal::Refusal;

/// A request.
pub(super) enum Request {
    /// One `NETLINK_RDMA` request.
    Netlink(Query),
    /// The complete reading of one device.
    Read(Read),
}

/// The device to read.
pub(super) struct Read {
    /// The device's index.
    pub(super) index: u32,
    /// The device's name.
    pub(super) name: DeviceName,
    /// The previous ports. If the ports are the same, nothing else is read.
    pub(super) unless: Option<Arc<[NldevPort]>>,
}

/// A result.
pub(super) enum Answer {
    /// The replies of `NETLINK_RDMA`.
    Netlink(Result<Replies, RequestError>),
    /// The reading of a device, and the error that ended it early.
    Read(Box<Reading>, Option<RequestError>),
}

/// The replies in one buffer.
#[derive(Default)]
pub(super) struct Replies {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Replies {
    /// Returns the attributes of each reply.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        let replies = starts.zip(&self.ends);
        replies.map(|(start, end)| self.bytes.get(start..*end).unwrap_or_default())
    }
}

impl Request {
    /// Returns the first step of the request.
    pub(super) fn first_step(&self) -> Step {
        match self {
            Self::Netlink(Query::System) => Step::System,
            Self::Netlink(Query::Devices) => Step::List,
            Self::Netlink(Query::Device(_)) => Step::Entry,
            Self::Netlink(Query::Ports(_)) | Self::Read(_) => Step::Ports,
        }
    }

    /// Processes the request on this thread, which may hang. Opens a socket if none is passed.
    pub(super) fn ask(
        self,
        shared: &Shared,
        socket: Option<RdmaSocket>,
        progress: &Progress,
    ) -> Answer {
        let socket = match socket {
            Some(socket) => Ok(socket),
            None => RdmaSocket::open().map_err(RequestError::from),
        };
        match (self, socket) {
            (Self::Netlink(query), Ok(mut socket)) => {
                let mut replies = Replies::default();
                let outcome = socket.ask(query, |reply| match reply {
                    Some(reply) => {
                        replies.bytes.extend_from_slice(reply);
                        replies.ends.push(replies.bytes.len());
                    }
                    None => replies = Replies::default(),
                });
                shared.free(socket);
                Answer::Netlink(outcome.map(|()| replies))
            }
            (Self::Netlink(_), Err(e)) => Answer::Netlink(Err(e)),
            (Self::Read(read), Ok(socket)) => {
                let failed = read.ask(shared, socket, progress).err();
                Answer::Read(Box::new(progress.take()), failed)
            }
            (Self::Read(_), Err(e)) => Answer::Read(Box::default(), Some(e)),
        }
    }
}

impl Read {
    fn ask(
        &self,
        shared: &Shared,
        mut socket: RdmaSocket,
        progress: &Progress,
    ) -> Result<(), RequestError> {
        let sysfs = &shared.sysfs;
        progress.learns(|reading| reading.name = Some(self.name.clone()));
        let placed = || sysfs.place(&self.name, progress);
        let place = self.unless.is_none().then(placed).flatten();
        progress.asks(Step::Ports);
        let ports = self.ports(&mut socket, progress);
        shared.free(socket);
        let ports = ports?;
        let place = match &self.unless {
            Some(before) if **before == *ports => {
                progress.learns(|reading| reading.same = true);
                return Ok(());
            }
            Some(_) => placed(),
            None => place,
        };
        if let Some(place) = place {
            sysfs.attributes(&place, &ports, progress);
        }
        Ok(())
    }

    /// Reads the ports, in the order of their numbers. Leaves out unusable ports.
    fn ports(
        &self,
        socket: &mut RdmaSocket,
        progress: &Progress,
    ) -> Result<Arc<[NldevPort]>, RequestError> {
        let mut told: Vec<Result<NldevPort, NldevError>> = Vec::new();
        socket.ask(Query::Ports(self.index), |reply| match reply {
            Some(reply) => told.push(NldevPort::parse(reply)),
            None => told.clear(),
        })?;
        let place = format_args!("a port of the RDMA device with index {}", self.index);
        let mut usable = BTreeMap::new();
        let mut refused = Vec::new();
        for port in told {
            match port {
                Ok(port) if usable.contains_key(&port.number) => {
                    let reason = format_args!("the number {} appears twice", port.number);
                    refused.push(Refusal::at(place, reason));
                }
                Ok(port) => {
                    usable.insert(port.number, port);
                }
                Err(e) => refused.push(Refusal::at(place, e)),
            }
        }
        let ports: Arc<[NldevPort]> = usable.into_values().collect();
        progress.learns(|reading| {
            reading.ports = Some(Arc::clone(&ports));
            reading.refused = refused;
        });
        Ok(ports)
    }
}
