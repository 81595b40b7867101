//! Numbers in netlink messages (`netlink(7)`), which are in the byte order of the machine. Pure. Must
//! never read behind the end of a message.

/// The 16-bit number that begins at `at`; nothing where the message ends before it does.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

/// The 32-bit number that begins at `at`; nothing where the message ends before it does.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// The length with what follows it up to the next header or attribute, which begin at multiples of
/// four bytes (`NLMSG_ALIGN`).
#[must_use]
pub fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}
