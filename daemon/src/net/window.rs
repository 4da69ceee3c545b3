//! How many bytes may be on their way: what a peer that is not read keeps here, or
//! does not read itself.

/// Of one stream: 300 ms at 100 Mbit/s.
pub(super) const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// Of all streams of a connection, in each direction.
pub(super) const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Of somebody who dialled us and has not said hello: room for a hello with all its heads
/// to come in pieces, or for a request to join. Nobody has less later.
pub(super) const UNKNOWN_WINDOW: u32 = 256 * 1024;
/// Of all connections: a quarter of what a hub of a city may take.
const ALL_WINDOWS: u32 = 128 * 1024 * 1024;

/// What each of so many connections may have on its way. It is a power of two, so that
/// what others have seldom changes when one more comes.
pub fn share(connections: usize) -> u32 {
    let connections = u32::try_from(connections).unwrap_or(u32::MAX).max(1);
    let even = (ALL_WINDOWS / connections).max(1);
    (1 << even.ilog2()).clamp(UNKNOWN_WINDOW, CONNECTION_WINDOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_windows_together_are_bounded_until_each_is_the_smallest() {
        const MIB: u32 = 1024 * 1024;
        for (connections, expected) in
            [(0, 16), (1, 16), (8, 16), (9, 8), (13, 8), (50, 2), (100, 1), (128, 1)]
        {
            assert_eq!(share(connections), expected * MIB, "{connections}");
        }
        assert_eq!((share(129), share(512), share(100_000)), (MIB / 2, MIB / 4, MIB / 4));
        assert!((1..=512).all(|count| count as u64 * u64::from(share(count)) <= 128 << 20));
    }
}
