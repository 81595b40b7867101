//! Numbers in netlink messages (`netlink(7)`), which are in the host's byte order. Pure. Must never
//! read past the end of a message.

/// Returns the 16-bit number at the offset `at`; nothing if the message is too short.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

/// Returns the 32-bit number at the offset `at`; nothing if the message is too short.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// Returns the length with its padding: the next header or attribute begins at a multiple of four
/// bytes (`NLMSG_ALIGN`).
#[must_use]
pub fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}
