//! Named moments at which a test can make the process die.
//!
//! Used behind every durable step of a rotation, here and in the daemon, so
//! that tests can ask what a crash at exactly that moment leaves behind.
//! Invariant: a release build contains none of it; a debug build dies only where
//! the environment says so.
//!
//! Not here: what has to be true afterwards; that is the tests' to say.

/// The variable that holds the name of the point to die at.
pub const VARIABLE: &str = "CREDITSYNC_CRASH_AT";

/// The names of this crate, in the order in which a federation's life meets them.
pub const POINTS: &[&str] = &[
    // A root CA's key is on disk, its certificate is not.
    "ca.root-key-written",
    // A root certificate is on disk.
    "ca.root-cert-written",
    // The certificate of a new root by an old one is on disk.
    "ca.cross-cert-written",
    // An issuing CA's key is on disk, its certificate is not.
    "ca.issuing-key-written",
    // An issuing certificate is on disk.
    "ca.issuing-cert-written",
    // A retired CA's key is gone.
    "ca.key-deleted",
    // A node's trusted roots are replaced.
    "bundle.written",
    // A key that shall follow the current one is on disk beside it.
    "key.next-written",
    // The following key has become the current one.
    "key.next-promoted",
    // A renewed certificate is on disk, and its key is not the current one yet.
    "node.chain-written",
];

/// The names that the daemon adds.
pub const POINTS_OF_DAEMON: &[&str] = &[
    // The anchor as the next root signed it is on disk beside the present one.
    "ca.next-anchor-written",
    // The next authorities stand in `_federation`.
    "ca.prepared",
    // They are the ones in use there.
    "ca.activated",
    // The anchor that the root in use signed has taken its place.
    "ca.anchor-replaced",
    // The authorities before them are retired in `_federation`.
    "ca.retired",
    // A member has taken over the roots that `_federation` names.
    "bundle.taken-over",
    // An invitation is marked as used, and nothing is granted yet.
    "invite.used",
    // What an invitation grants stands in `_federation`, and that is not noted yet.
    "invite.granted",
    // Where the hub is dialled from now on stands in `_federation`.
    "hub.moved",
    // A signing key that follows stands in `_federation`.
    "key.registered",
    // A member has signed anew what the key before it may not sign.
    "key.adopted",
    // After a theft: the new anchor is on the hub's disk.
    "key.anchor-written",
    // After a theft: the new anchor is on a member's disk.
    "anchor.taken",
    // Of two histories: what is here is set aside, and a record says so.
    "fork.set-aside",
    // It is dropped, and what the peer holds is not back.
    "fork.dropped",
    // That is back, and the difference is issued again.
    "fork.reissued",
];

/// Dies here if [`VARIABLE`] names this point and the build is a debug one.
///
/// It dies by `abort`: like SIGKILL it runs no destructor and flushes nothing,
/// and unlike that signal it needs no `unsafe`.
///
/// # Panics
/// In a debug build, if `name` is not one of [`POINTS`] or
/// [`POINTS_OF_DAEMON`].
#[inline]
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    {
        assert!(
            POINTS.contains(&name) || POINTS_OF_DAEMON.contains(&name),
            "'{name}' is not in fault::POINTS"
        );
        if std::env::var_os(VARIABLE).is_some_and(|wanted| wanted == name) {
            std::process::abort();
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_unknown_ones_are_refused() {
        for (index, name) in POINTS.iter().enumerate() {
            assert!(!POINTS[..index].contains(name), "{name}");
            point(name);
        }
        let refused = std::panic::catch_unwind(|| point("nowhere")).is_err();
        assert_eq!(refused, cfg!(debug_assertions));
    }
}
