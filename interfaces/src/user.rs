//! User names and their numbers, as in `passwd(5)`. Only files are read: a service that starts
//! before sysinit.target cannot wait for a name service. Must never decide what a user may do.

use std::fs;
use std::path::Path;

/// Returns the number of `user`, which is a number itself or a name in the file `passwd`. Returns
/// nothing if the name is unknown.
#[must_use]
pub fn uid(user: &str, passwd: &Path) -> Option<u32> {
    uid_in(user, &fs::read_to_string(passwd).unwrap_or_default())
}

fn uid_in(user: &str, passwd: &str) -> Option<u32> {
    user.parse().ok().or_else(|| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(user)).then(|| fields.nth(1)?.parse().ok())?
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_or_number() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\nrdma-orchestrator:!*:990:990::/:/usr/sbin/nologin\n";
        assert_eq!(uid_in("rdma-orchestrator", passwd), Some(990));
        assert_eq!(uid_in("1000", passwd), Some(1000));
        assert_eq!(uid_in("rdma", passwd), None);
    }
}
