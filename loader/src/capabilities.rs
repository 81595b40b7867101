//! The capabilities of this process. Must never raise one that it did not have.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// Keeps of what this thread may do the capabilities `kept` and no other, in every set. One that
/// it does not have is not an error: the kernel refuses what needs it, and says so. Call it while
/// there is one thread: later ones inherit it.
///
/// # Errors
/// When the kernel refuses to take one away.
pub fn keep(kept: CapabilitySet) -> io::Result<()> {
    let current = capabilities(None)?;
    for capability in (!kept).iter() {
        // It takes CAP_SETPCAP, which the service's unit does not give. There the unit's own
        // bounding set holds, and nothing that the process might run.
        let _ = remove_capability_from_bounding_set(capability);
    }
    // A kernel without ambient capabilities has none to clear.
    let _ = clear_ambient_capability_set();
    let permitted = current.permitted & kept;
    set_capabilities(
        None,
        CapabilitySets {
            effective: permitted,
            permitted,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::{capability_is_in_ambient_set, capability_is_in_bounding_set};
    use std::thread;

    #[test]
    fn what_is_not_kept_is_gone_from_every_set_and_the_rest_is_as_it_was() {
        let before = capabilities(None).unwrap();
        // On a thread of its own: it cannot be taken back.
        let after = thread::spawn(|| {
            keep(CapabilitySet::DAC_READ_SEARCH).unwrap();
            let module = CapabilitySet::SYS_MODULE;
            let bounded = capability_is_in_bounding_set(module).unwrap();
            let ambient = capability_is_in_ambient_set(module).unwrap();
            (capabilities(None).unwrap(), bounded, ambient)
        });
        let (after, bounded, ambient) = after.join().unwrap();
        let expected = before.permitted & CapabilitySet::DAC_READ_SEARCH;
        assert_eq!((after.effective, after.permitted), (expected, expected));
        assert!(after.inheritable.is_empty() && !ambient);
        let may_drop = before.effective.contains(CapabilitySet::SETPCAP);
        assert!(!may_drop || !bounded);
    }
}
