//! Uevents: any datagram. What is decoded holds no control characters, and a datagram made of it
//! again is decoded to the same.
#![no_main]

use detector::uevent::Uevent;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    let Ok(uevent) = Uevent::parse(datagram) else {
        return;
    };
    for text in [&uevent.action, &uevent.devpath, &uevent.subsystem] {
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    assert!(uevent.devpath.starts_with('/'));
    let Uevent {
        action,
        devpath,
        subsystem,
        sequence,
    } = &uevent;
    let again = format!(
        "{action}@{devpath}\0ACTION={action}\0DEVPATH={devpath}\0SUBSYSTEM={subsystem}\0\
         SEQNUM={sequence}\0"
    );
    assert_eq!(Uevent::parse(again.as_bytes()).as_ref(), Ok(&uevent));
});
