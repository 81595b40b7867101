//! Fuzz target of the uevent decoder. It decodes any datagram. It checks that the result holds no
//! control characters, and that a datagram built from the result decodes to the same result.
#![no_main]

use detector::pending::Pending;
use detector::uevent::Uevent;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    let Ok(uevent) = Uevent::parse(datagram) else {
        return;
    };
    let old = uevent.devpath_old.unwrap_or("/devices");
    for text in [uevent.action, uevent.devpath, old, uevent.subsystem] {
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    for path in [uevent.devpath, old] {
        let mut components = path.split('/');
        assert_eq!(components.next(), Some(""));
        assert!(components.all(|c| !["", ".", ".."].contains(&c)), "{path:?}");
    }
    let Uevent {
        action,
        devpath,
        devpath_old,
        subsystem,
        sequence,
    } = uevent;
    let mut again = format!(
        "{action}@{devpath}\0ACTION={action}\0DEVPATH={devpath}\0SUBSYSTEM={subsystem}\0\
         SEQNUM={sequence}\0"
    );
    if let Some(old) = devpath_old {
        again += &format!("DEVPATH_OLD={old}\0");
    }
    assert_eq!(Uevent::parse(again.as_bytes()), Ok(uevent));
    // The pending set accepts any uevent.
    let mut pending = Pending::default();
    pending.uevent(&uevent);
});
