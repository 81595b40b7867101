//! Tests of the decoder of the kernel's replies, including cut and forged ones.

use super::*;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(ATTRIBUTE_HEADER_LEN + value.len()).unwrap();
    let mut attribute = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    attribute.extend(value);
    attribute.resize(aligned(attribute.len()), 0);
    attribute
}

fn rxe0() -> Vec<u8> {
    [
        attribute(DEV_INDEX, &7u32.to_ne_bytes()),
        attribute(DEV_NAME, b"rxe0\0"),
        attribute(NODE_GUID, &0x5054_00ff_fe12_3456u64.to_ne_bytes()),
        attribute(DEV_NODE_TYPE, &[1]),
        attribute(DEV_PROTOCOL, b"roce\0"),
    ]
    .concat()
}

#[test]
fn a_device_is_decoded() {
    let device = NldevDevice::parse(&rxe0()).unwrap();
    assert_eq!(device.index, 7);
    assert_eq!(device.name.as_str(), "rxe0");
    assert_eq!(device.node_guid, Some(0x5054_00ff_fe12_3456));
    assert_eq!(device.protocol.as_deref(), Some("roce"));
}

#[test]
fn a_truncated_device_is_an_error_or_lacks_the_missing_fields() {
    let whole = rxe0();
    let padding = 3;
    for end in 0..whole.len() - padding {
        if let Ok(device) = NldevDevice::parse(&whole[..end]) {
            assert_ne!(device, NldevDevice::parse(&whole).unwrap(), "cut at {end}");
        }
    }
}

#[test]
fn a_hostile_name_is_refused() {
    let payload = [
        attribute(DEV_INDEX, &7u32.to_ne_bytes()),
        attribute(DEV_NAME, b"../../etc\0"),
    ]
    .concat();
    assert!(matches!(
        NldevDevice::parse(&payload),
        Err(NldevError::Name(_))
    ));
}

#[test]
fn an_invalid_name_is_refused_with_a_printable_error() {
    for name in [
        &b"rx\x1be0\0"[..],
        "rx\u{9b}e0\0".as_bytes(),
        b"rx\xffe0\0",
        b"\xff\xfe\0",
        b"rx\0e0\0",
        b"\0",
        b"",
        b"..\0",
        &[b'x'; 64],
    ] {
        let payload = [
            attribute(DEV_INDEX, &7u32.to_ne_bytes()),
            attribute(DEV_NAME, name),
        ];
        let refused = NldevDevice::parse(&payload.concat())
            .unwrap_err()
            .to_string();
        assert!(!refused.contains(char::is_control), "{refused:?}");
    }
}

#[test]
fn an_invalid_optional_field_is_left_out_and_its_record_is_kept() {
    for wrong in [&b"a\x1bb\0"[..], b"\xff\0", b"\0", &[b'x'; 256]] {
        let payload = [rxe0(), attribute(FW_VERSION, wrong)].concat();
        let device = NldevDevice::parse(&payload).unwrap();
        assert_eq!(device.firmware_version, None, "{wrong:?}");
    }
    for wrong in ["../infiniband", "a b", "..", "a:b", "sixteen-and-more"] {
        let port = [
            attribute(PORT_INDEX, &1u32.to_ne_bytes()),
            attribute(NDEV_NAME, wrong.as_bytes()),
        ];
        let port = NldevPort::parse(&port.concat()).unwrap();
        assert_eq!(port.netdev, None, "{wrong}");
    }
}

#[test]
fn a_port_has_a_number_from_1_to_255() {
    for (number, expected) in [(0, false), (1, true), (255, true), (256, false)] {
        let port = attribute(PORT_INDEX, &u32::to_ne_bytes(number));
        assert_eq!(NldevPort::parse(&port).is_ok(), expected, "{number}");
    }
}

#[test]
fn a_dump_ends_with_done_and_ignores_replies_to_other_requests() {
    let ours = encode_message(CLIENT + 1, 2, 9, &rxe0());
    let others = encode_message(CLIENT + 1, 2, 8, &rxe0());
    let done = encode_message(NLMSG_DONE, 2, 9, &0i32.to_ne_bytes());
    let datagram = [others, ours, done].concat();
    let batch = batch(&datagram, 9).unwrap();
    assert_eq!(batch.payloads.len(), 1);
    assert!(batch.done);
}

#[test]
fn a_refusal_and_an_interrupted_dump_are_errors() {
    let refused = encode_message(NLMSG_ERROR, 0, 9, &(-22i32).to_ne_bytes());
    assert_eq!(batch(&refused, 9), Err(NldevError::Refused(22)));
    let interrupted = encode_message(CLIENT + 1, NLM_F_DUMP_INTR, 9, &rxe0());
    assert_eq!(batch(&interrupted, 9), Err(NldevError::Interrupted));
}

#[test]
fn a_message_length_below_the_header_or_beyond_the_buffer_is_an_error() {
    let mut message = encode_message(CLIENT + 1, 2, 9, &rxe0());
    for len in [0u32, 1, 15, 4096, u32::MAX] {
        message[..4].copy_from_slice(&len.to_ne_bytes());
        assert_eq!(batch(&message, 9), Err(NldevError::Cut), "length {len}");
    }
}

#[test]
fn a_single_reply_ends_with_its_acknowledgement() {
    let payload = [
        attribute(SYS_NETNS_MODE, &[1]),
        attribute(SYS_MONITOR_MODE, &[1]),
    ]
    .concat();
    let answer = encode_message(CLIENT + 6, 0, 9, &payload);
    let acknowledgement = encode_message(NLMSG_ERROR, 0, 9, &0i32.to_ne_bytes());
    let datagram = [answer, acknowledgement].concat();
    let batch = batch(&datagram, 9).unwrap();
    assert!(batch.done);
    let system = NldevSystem::parse(batch.payloads[0]).unwrap();
    assert_eq!(
        system,
        NldevSystem {
            netns_shared: Some(true),
            monitor: true
        }
    );
}

#[test]
fn a_monitor_message_names_its_device_if_it_has_an_index() {
    let register = encode_message(MONITOR, 0, 0, &rxe0());
    let netdev_renamed = encode_message(MONITOR, 0, 0, &attribute(NDEV_NAME, b"eth0\0"));
    let other = encode_message(CLIENT + 1, 0, 0, &rxe0());
    let datagram = [register, netdev_renamed, other].concat();
    assert_eq!(monitored(&datagram), Ok(vec![Some(7), None]));
    assert_eq!(monitored(&datagram[..40]), Err(NldevError::Cut));
}

#[test]
fn a_port_query_names_its_device() {
    let request = Query::Ports(7).encode(3);
    assert_eq!(request.len(), HEADER_LEN + 8);
    assert_eq!(u16_at(&request, 4), Some(0x1405));
    assert_eq!(u32_at(&request, HEADER_LEN + 4), Some(7));
}
