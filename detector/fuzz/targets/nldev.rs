//! Fuzz target of the `NETLINK_RDMA` decoder. It decodes any datagram as the reply to request 1 and
//! as a message of the monitor. It checks that each decoded text is part of the datagram, and that
//! a request which is decoded as a reply never ends the dump.
#![no_main]

use detector::nldev::{NldevDevice, NldevPort, NldevSystem, Query, batch, monitored};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    if let Ok(batch) = batch(datagram, 1) {
        let len: usize = batch.payloads.iter().map(|payload| payload.len()).sum();
        assert!(len <= datagram.len());
        for payload in batch.payloads {
            let _ = NldevSystem::parse(payload);
            let stands_in_it = |text: &str| {
                text.is_empty() || payload.windows(text.len()).any(|w| w == text.as_bytes())
            };
            if let Ok(device) = NldevDevice::parse(payload) {
                assert!(stands_in_it(device.name.as_str()));
                assert!(stands_in_it(&device.protocol.unwrap_or_default()));
                assert!(stands_in_it(&device.firmware_version.unwrap_or_default()));
                assert!(stands_in_it(&device.parent.unwrap_or_default()));
            }
            if let Ok(port) = NldevPort::parse(payload) {
                assert!(stands_in_it(&port.netdev.unwrap_or_default()));
            }
        }
    }
    if let Ok(indexes) = monitored(datagram) {
        assert!(indexes.len() <= datagram.len() / 16);
    }
    let index = datagram.first().map_or(0, |byte| u32::from(*byte));
    for query in [Query::Devices, Query::Ports(index), Query::System] {
        let request = query.encode(1);
        let own = batch(&request, 1);
        assert!(own.is_ok_and(|own| !own.done && own.payloads.len() == 1));
    }
});
