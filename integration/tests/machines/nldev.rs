//! The replies of `NETLINK_RDMA` for a host, and a thread that sends them from the other end of a
//! socket pair. Must never answer an unsent request, nor outlive the test.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use detector::netlink::RdmaSocket;
use integration::wire::{self, Answer, EINVAL, Request, attribute, text};

/// A source of replies.
pub trait Answers: Send + 'static {
    /// Returns the reply to one request.
    fn answer(&mut self, request: Request) -> Answer;

    /// Returns true if a request never gets a reply.
    fn is_silent(&self, _request: Request) -> bool {
        false
    }
}

/// Attributes in the order in which they are sent, as words.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// Parses `key=value key=value`.
    pub fn parse(line: &str) -> Self {
        let field = |word: &str| {
            let (key, value) = word.split_once('=').expect("a word without '='");
            (key.to_owned(), value.to_owned())
        };
        Self(line.split_whitespace().map(field).collect())
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let field = self.0.iter().find(|(k, _)| k == key);
        field.map(|(_, value)| value.as_str())
    }

    fn number(&self, key: &str) -> u32 {
        self.get(key).and_then(|value| value.parse().ok()).unwrap()
    }

    /// Sets the value of a key. `None` removes the key, and it is not sent.
    pub fn set(&mut self, key: &str, value: Option<&str>) {
        self.0.retain(|(k, _)| k != key || value.is_some());
        let Some(value) = value else { return };
        match self.0.iter_mut().find(|(k, _)| k == key) {
            Some(field) => value.clone_into(&mut field.1),
            None => self.0.push((key.to_owned(), value.to_owned())),
        }
    }

    fn encode(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(k, v)| encode(k, v)).collect()
    }
}

fn encode(key: &str, value: &str) -> Vec<u8> {
    let byte = |kind| attribute(kind, &[value.parse::<u8>().unwrap()]);
    let number = |kind| attribute(kind, &value.parse::<u32>().unwrap().to_ne_bytes());
    let guid = |kind| {
        let guid = u64::from_str_radix(&value.replace(':', ""), 16).unwrap();
        attribute(kind, &guid.to_ne_bytes())
    };
    match key {
        "index" | "device" => number(wire::DEV_INDEX),
        "name" => text(wire::DEV_NAME, value),
        "ports" | "number" => number(wire::PORT_INDEX),
        "firmware" => text(wire::FW_VERSION, value),
        "node_guid" => guid(wire::NODE_GUID),
        "sys_image_guid" => guid(wire::SYS_IMAGE_GUID),
        "state" => byte(wire::PORT_STATE),
        "node_type" => byte(wire::DEV_NODE_TYPE),
        "netdev" => text(wire::NDEV_NAME, value),
        "netns_mode" => byte(wire::SYS_NETNS_MODE),
        "protocol" => text(wire::DEV_PROTOCOL, value),
        "type" => byte(wire::DEV_TYPE),
        "parent" => text(wire::PARENT_NAME, value),
        "name_assign_type" => byte(wire::NAME_ASSIGN_TYPE),
        _ => panic!("there is no attribute {key}"),
    }
}

/// All replies.
#[derive(Debug)]
pub struct Table {
    /// The settings of the RDMA core, or the errno with which the request is refused.
    pub system: Result<Fields, i32>,
    /// The devices by their index.
    pub devices: BTreeMap<u32, Fields>,
    /// The ports by their device and number.
    pub ports: BTreeMap<(u32, u32), Fields>,
    /// The number of requests.
    pub asked: usize,
}

impl Table {
    /// Creates a table without devices, for devices shared by all network namespaces.
    pub fn new() -> Self {
        Self {
            system: Ok(Fields::parse("netns_mode=1")),
            devices: BTreeMap::new(),
            ports: BTreeMap::new(),
            asked: 0,
        }
    }

    /// Adds a line `system ...`, `device ...` or `port ...`.
    pub fn line(&mut self, line: &str) {
        let (what, fields) = line.split_once(' ').expect("a line of one word");
        let fields = Fields::parse(fields);
        match what {
            "system" => {
                let refused = fields.get("refused").map(|errno| errno.parse().unwrap());
                self.system = refused.map_or(Ok(fields), Err);
            }
            "device" => {
                self.devices.insert(fields.number("index"), fields);
            }
            "port" => {
                let key = (fields.number("device"), fields.number("number"));
                self.ports.insert(key, fields);
            }
            _ => panic!("there is no {what} to answer"),
        }
    }
}

impl Answers for Table {
    fn answer(&mut self, request: Request) -> Answer {
        self.asked += 1;
        match request {
            Request::System => Ok(vec![self.system.as_ref().map_err(|e| *e)?.encode()]),
            Request::Devices => Ok(self.devices.values().map(Fields::encode).collect()),
            Request::Device(index) => match self.devices.get(&index) {
                Some(device) => Ok(vec![device.encode()]),
                None => Err(EINVAL),
            },
            Request::Ports(index) if self.devices.contains_key(&index) => {
                let ports = self.ports.range((index, 0)..=(index, u32::MAX));
                Ok(ports.map(|(_, port)| port.encode()).collect())
            }
            Request::Ports(_) => Err(EINVAL),
        }
    }
}

/// The connection to the thread that replies. Dropping it ends the thread.
pub struct Line {
    hang_up: UnixDatagram,
}

impl Drop for Line {
    fn drop(&mut self) {
        // The other end of a pair of datagram sockets does not notice that this one is closed.
        let _ = self.hang_up.send(&[]);
    }
}

/// Returns a socket on which the replies arrive.
pub fn connect<A: Answers>(answers: &Arc<Mutex<A>>) -> (RdmaSocket, Line) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let hang_up = theirs.try_clone().unwrap();
    let answers = Arc::clone(answers);
    thread::spawn(move || {
        let mut request = [0; 4096];
        while let Ok(len @ 1..) = ours.recv(&mut request) {
            let mut silent = false;
            let datagrams = wire::respond(&request[..len], |request| {
                let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                silent = answers.is_silent(request);
                answers.answer(request)
            });
            if silent {
                continue;
            }
            for datagram in datagrams {
                ours.send(&datagram).unwrap();
            }
        }
    });
    let socket = RdmaSocket::adopt(theirs.into()).unwrap();
    (socket, Line { hang_up })
}
