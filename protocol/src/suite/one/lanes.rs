//! BLAKE3 of many short messages at once.
//!
//! The blocks of one message wait for each other, so a short message takes some
//! 90 ns for each of its blocks, whatever the processor's registers could hold.
//! Messages of equally many blocks do not wait for each other and lie side by
//! side in SIMD lanes. Used through [`Suite::hash_each`]; messages that are
//! longer than BLAKE3's chunk of 1024 bytes fill the lanes by themselves.
//!
//! Invariant: what comes out is what [`Suite::hash_padded`] gives for each
//! message alone; a property test compares all lengths.
//!
//! `blake3::platform` is hidden from blake3's documentation and promises
//! nothing, which is why the version is pinned to 1.8 and no other module names
//! it. blake3 has no other way to hash several messages together. The way out
//! is to hash in [`Batch::push`] every message as the long ones are: the hashes
//! stay the same, at the price of their time.

use std::{array, cell::Cell, sync::LazyLock};

use blake3::{
    BLOCK_LEN, CHUNK_LEN, IncrementCounter, OUT_LEN, hazmat::hash_derive_key_context,
    platform::Platform,
};

use super::context;
use crate::suite::{
    Suite,
    hash::{Hash, PURPOSES, Purpose},
};

/// Messages that are hashed together: the widest registers hold so many words.
const LANES: usize = 16;
/// Blocks of the longest message that is one chunk, and so has no tree.
const BLOCKS_MAX: usize = CHUNK_LEN / BLOCK_LEN;

/// Flags of the BLAKE3 paper, section 2.2.
const CHUNK_START: u8 = 1 << 0;
const CHUNK_END: u8 = 1 << 1;
const ROOT: u8 = 1 << 3;
const DERIVE_KEY_MATERIAL: u8 = 1 << 6;

/// A context's key, as words.
type ContextKey = [u32; 8];

static CONTEXT_KEYS: LazyLock<[ContextKey; PURPOSES]> = LazyLock::new(|| {
    Purpose::ALL.map(|purpose| {
        let key = hash_derive_key_context(context(purpose));
        let (words, _) = key.as_chunks();
        array::from_fn(|index| u32::from_le_bytes(words[index]))
    })
});

// At most 136 KiB a thread, and none for lengths that it has not met.
thread_local! {
    static GROUPS: Cell<Option<Box<Groups>>> = const { Cell::new(None) };
}

/// Messages that are being hashed.
pub struct Batch {
    purpose: Purpose,
    platform: Platform,
    groups: Box<Groups>,
    hashes: Vec<Hash>,
}

/// By number of blocks, from one.
type Groups = [Group; BLOCKS_MAX];

/// Messages of one number of blocks that wait for their hashes.
#[derive(Default)]
struct Group {
    /// Room for as many messages as there are lanes; none before the first one.
    bytes: Vec<u8>,
    /// Where each message's hash belongs.
    places: [usize; LANES],
    count: usize,
}

impl Batch {
    /// No messages yet.
    pub fn new(purpose: Purpose) -> Self {
        Self::on(Platform::detect(), purpose)
    }

    fn on(platform: Platform, purpose: Purpose) -> Self {
        Self { purpose, platform, groups: GROUPS.take().unwrap_or_default(), hashes: Vec::new() }
    }

    /// The hashes of the messages, in their order.
    pub fn finish(mut self) -> Vec<Hash> {
        for blocks in 1..=BLOCKS_MAX {
            self.hash_group(blocks);
        }
        GROUPS.set(Some(self.groups));
        self.hashes
    }

    /// Makes room for so many messages.
    pub fn reserve(&mut self, messages: usize) {
        self.hashes.reserve(messages);
    }

    /// Takes the concatenation of `parts` as the next message.
    pub fn push(&mut self, parts: &[&[u8]]) {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let blocks = bytes.div_ceil(BLOCK_LEN);
        if blocks == 0 || blocks > BLOCKS_MAX {
            self.hashes.push(Suite::One.hash_padded(self.purpose, parts));
            return;
        }
        let group = &mut self.groups[blocks - 1];
        let padded = blocks * BLOCK_LEN;
        group.bytes.resize(LANES * padded, 0);
        let mut room = &mut group.bytes[group.count * padded..][..padded];
        for part in parts {
            let (taken, rest) = room.split_at_mut(part.len());
            taken.copy_from_slice(part);
            room = rest;
        }
        room.fill(0);
        group.places[group.count] = self.hashes.len();
        group.count += 1;
        self.hashes.push(Suite::One.none());
        if group.count == LANES {
            self.hash_group(blocks);
        }
    }

    fn hash_group(&mut self, blocks: usize) {
        let group = &mut self.groups[blocks - 1];
        let count = std::mem::take(&mut group.count);
        if count == 0 {
            return;
        }
        let key = &CONTEXT_KEYS[self.purpose as usize];
        let lanes = lanes_for(count, self.platform.simd_degree());
        let mut out = [0; LANES * OUT_LEN];
        BY_BLOCKS[blocks - 1](self.platform, key, &group.bytes, lanes, &mut out);
        for (place, hash) in group.places[..count].iter().zip(out.as_chunks::<OUT_LEN>().0) {
            self.hashes[*place] = Hash::of_length(Suite::One, hash);
        }
    }
}

/// How many lanes to fill for `count` messages: seven take three steps of 4, 2
/// and 1, and eight take one. What lies in the other lanes is of no account.
fn lanes_for(count: usize, at_once: usize) -> usize {
    let rest = count % at_once;
    if rest == 0 { count } else { count - rest + rest.next_power_of_two() }
}

type HashMany = fn(Platform, &ContextKey, &[u8], usize, &mut [u8; LANES * OUT_LEN]);

/// [`hash_many`] by number of blocks, from one.
const BY_BLOCKS: [HashMany; BLOCKS_MAX] = [
    hash_many::<64>,
    hash_many::<128>,
    hash_many::<192>,
    hash_many::<256>,
    hash_many::<320>,
    hash_many::<384>,
    hash_many::<448>,
    hash_many::<512>,
    hash_many::<576>,
    hash_many::<640>,
    hash_many::<704>,
    hash_many::<768>,
    hash_many::<832>,
    hash_many::<896>,
    hash_many::<960>,
    hash_many::<1024>,
];

/// Hashes the first `lanes` messages of `N` bytes each.
fn hash_many<const N: usize>(
    platform: Platform,
    key: &ContextKey,
    bytes: &[u8],
    lanes: usize,
    out: &mut [u8; LANES * OUT_LEN],
) {
    let (messages, _) = bytes.as_chunks::<N>();
    let messages: [&[u8; N]; LANES] = array::from_fn(|lane| &messages[lane]);
    platform.hash_many(
        &messages[..lanes],
        key,
        0,
        IncrementCounter::No,
        DERIVE_KEY_MATERIAL,
        CHUNK_START,
        CHUNK_END | ROOT,
        out,
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By the public functions of blake3 alone.
    fn expected(purpose: Purpose, message: &[u8]) -> Hash {
        let mut padded = message.to_vec();
        padded.resize(message.len().next_multiple_of(64), 0);
        Hash::of_length(Suite::One, &blake3::derive_key(context(purpose), &padded))
    }

    /// Bytes that differ from place to place and from message to message.
    fn message(bytes: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(step).take(bytes).collect()
    }

    #[test]
    fn every_length_hashes_as_the_ordinary_hasher_does_alone_and_among_equals() {
        // The longer ones first: they leave more behind in the buffers.
        for bytes in (0..=3000).rev() {
            for count in [1, 2, 7] {
                let messages: Vec<_> = (0..count).map(|n| message(bytes, n << 32)).collect();
                let hashes = Suite::One.hash_each(Purpose::Entry, |batch| {
                    messages.iter().for_each(|one| batch.push(&[one]));
                });
                let wanted: Vec<_> =
                    messages.iter().map(|one| expected(Purpose::Entry, one)).collect();
                assert_eq!(hashes, wanted, "{count} of {bytes} bytes");
                assert_eq!(Suite::One.hash_padded(Purpose::Entry, &[&messages[0]]), wanted[0]);
            }
        }
    }

    proptest! {
        #[test]
        fn mixed_lengths_in_parts_keep_their_order_and_leave_nothing_behind(
            lengths in prop::collection::vec(
                prop_oneof![4 => 0usize..130, 4 => 300usize..400, 2 => 0usize..3000],
                0..150,
            ),
            seed: u64,
            cut in 0.0..1.0f64,
        ) {
            let messages: Vec<_> =
                lengths.iter().zip(0..).map(|(bytes, n)| message(*bytes, seed ^ (n << 32))).collect();
            for purpose in [Purpose::Key, Purpose::Entry] {
                let hashes = Suite::One.hash_each(purpose, |batch| {
                    for message in &messages {
                        let (left, right) = message.split_at((message.len() as f64 * cut) as usize);
                        batch.push(&[left, &[], right]);
                    }
                });
                let wanted: Vec<_> = messages.iter().map(|one| expected(purpose, one)).collect();
                prop_assert_eq!(hashes, wanted);
            }
        }
    }

    #[test]
    fn narrower_registers_and_none_come_to_the_same() {
        let mut platforms = vec![Platform::portable()];
        #[cfg(target_arch = "x86_64")]
        platforms
            .extend([Platform::sse2(), Platform::sse41(), Platform::avx2()].into_iter().flatten());
        let messages: Vec<_> = (0..100).map(|n| message(30 * n % 1100, n as u64)).collect();
        let wanted: Vec<_> = messages.iter().map(|one| expected(Purpose::Entry, one)).collect();
        for platform in platforms {
            for count in 0..=messages.len() {
                let mut batch = Batch::on(platform, Purpose::Entry);
                messages[..count].iter().for_each(|one| batch.push(&[one]));
                assert_eq!(batch.finish(), wanted[..count], "{platform:?}");
            }
        }
    }

    #[test]
    fn a_batch_inside_of_a_batch_has_buffers_of_its_own() {
        let mut inner = Vec::new();
        let outer = Suite::One.hash_each(Purpose::Key, |batch| {
            batch.push(&[b"a"]);
            inner = Suite::One.hash_each(Purpose::Entry, |batch| batch.push(&[b"b"]));
            batch.push(&[b"c"]);
        });
        assert_eq!(outer, [b"a", b"c"].map(|one| expected(Purpose::Key, one)));
        assert_eq!(inner, [expected(Purpose::Entry, b"b")]);
    }

    #[test]
    fn lanes_are_filled_where_that_saves_a_step() {
        let of = |at_once| (1..=LANES).map(|count| lanes_for(count, at_once)).collect::<Vec<_>>();
        assert_eq!(of(16), [1, 2, 4, 4, 8, 8, 8, 8, 16, 16, 16, 16, 16, 16, 16, 16]);
        assert_eq!(of(8), [1, 2, 4, 4, 8, 8, 8, 8, 9, 10, 12, 12, 16, 16, 16, 16]);
        assert_eq!(of(4), [1, 2, 4, 4, 5, 6, 8, 8, 9, 10, 12, 12, 13, 14, 16, 16]);
        assert_eq!(of(1), (1..=LANES).collect::<Vec<_>>());
    }
}
