//! The caller, and its authorisation. Verdicts are computed here and enforced elsewhere. Pure. Must
//! never trust what a caller reports about itself.

use super::error::CallError;

/// The caller, as the kernel reports it (`SO_PEERCRED`, `unix(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The effective user at the time of `connect(2)`.
    pub uid: u32,
    /// The process, if it is visible from here.
    pub pid: Option<i32>,
    /// True if it has reserved capacity: root, the service's own user, a configured peer.
    pub privileged: bool,
}

/// The verdict on a caller's request. It is computed apart from the act, and must not be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Authorisation {
    /// The caller is allowed.
    Granted,
    /// The caller is not allowed.
    Refused,
}

impl Peer {
    /// Grants root, and the user `also` if there is one.
    pub fn is_root_or(self, also: Option<u32>) -> Authorisation {
        if self.uid == 0 || Some(self.uid) == also {
            Authorisation::Granted
        } else {
            Authorisation::Refused
        }
    }
}

impl Authorisation {
    /// Succeeds if the request was granted.
    ///
    /// # Errors
    /// `org.varlink.service.PermissionDenied` if it was refused.
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
    fn only_root_and_the_named_user_are_granted() {
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
