//! The capabilities of this process. Must never raise a capability that it did not have.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// Restricts every capability set of this thread to `kept`. A capability in `kept` that the thread
/// lacks is not an error: the kernel refuses the operation that needs it, and that is reported.
/// Call this while the process has one thread: later threads inherit the sets.
///
/// # Errors
/// Fails if the kernel refuses to drop a capability.
pub fn keep(kept: CapabilitySet) -> io::Result<()> {
    let current = capabilities(None)?;
    for capability in (!kept).iter() {
        // This needs CAP_SETPCAP, which the service's unit does not grant. There the unit's own
        // bounding set applies, and this process executes no program.
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
    fn dropped_capabilities_are_removed_from_every_set_and_the_kept_ones_stay() {
        let before = capabilities(None).unwrap();
        // On a separate thread, because the change cannot be undone.
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
