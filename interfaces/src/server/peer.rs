//! Who calls, and whether it may. Verdicts are computed here and acted on elsewhere. Must never
//! believe what a caller says of itself.

use super::error::CallError;

/// Who is calling, as the kernel says (`SO_PEERCRED`, `unix(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The effective user at the time of `connect(2)`.
    pub uid: u32,
    /// The process, where it is visible from here.
    pub pid: Option<i32>,
    /// Whether it has a place of its own: root, the service's own user, a configured peer.
    pub privileged: bool,
}

/// Whether a caller may do what it asks. Computed apart from the act, and never to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Authorisation {
    /// It may.
    Granted,
    /// It may not.
    Refused,
}

impl Peer {
    /// Root may, and the user `also`, when there is one.
    pub fn is_root_or(self, also: Option<u32>) -> Authorisation {
        if self.uid == 0 || Some(self.uid) == also {
            Authorisation::Granted
        } else {
            Authorisation::Refused
        }
    }
}

impl Authorisation {
    /// Goes on where it was granted.
    ///
    /// # Errors
    /// `org.varlink.service.PermissionDenied` where it was not.
    pub fn granted(self) -> Result<(), CallError> {
        match self {
            Self::Granted => Ok(()),
            Self::Refused => Err(CallError::permission_denied()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_one_named_user_are_granted_and_nobody_else() {
        let of = |uid| Peer {
            uid,
            pid: None,
            privileged: false,
        };
        assert_eq!(of(0).is_root_or(Some(990)), Authorisation::Granted);
        assert_eq!(of(990).is_root_or(Some(990)), Authorisation::Granted);
        assert_eq!(of(65534).is_root_or(Some(990)), Authorisation::Refused);
        assert_eq!(of(990).is_root_or(None), Authorisation::Refused);
    }
}
