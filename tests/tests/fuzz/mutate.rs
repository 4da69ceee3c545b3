//! Inputs made of the corpus: flips, cuts, splices, and edited lengths.

use harness::sim::rng::Rng;

/// Numbers that length fields break at.
const EDGES: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 250, 251, 252, 253, 0xffff, 0x7fff_ffff, u64::MAX];
/// Inputs do not grow beyond this by splicing.
const INPUT_BYTES_MAX: usize = 256 * 1024;

/// One to six mutations of an input of the corpus.
pub fn mutate(corpus: &[&[u8]], rng: &mut Rng) -> Vec<u8> {
    let mut input = corpus[rng.index(corpus.len())].to_vec();
    for _ in 0..=rng.below(6) {
        mutate_once(&mut input, corpus, rng);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn mutate_once(input: &mut Vec<u8>, corpus: &[&[u8]], rng: &mut Rng) {
    // Headers and lengths stand at the front, so half of all hits are there.
    let length = if rng.chance(50) { input.len().min(64) } else { input.len() };
    if length == 0 {
        input.push(rng.u64() as u8);
        return;
    }
    let at = rng.index(length);
    match rng.below(8) {
        0 => input[at] ^= 1 << rng.below(8),
        1 => input[at] = rng.u64() as u8,
        2 => input.truncate(at),
        3 => {
            let other = corpus[rng.index(corpus.len())];
            let from = rng.below(other.len() as u64 + 1) as usize;
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        4 => {
            // A length or number of 1, 2, 4 or 8 bytes, big-endian.
            let width = 1 << rng.below(4);
            let edge = EDGES[rng.index(EDGES.len())].wrapping_add(rng.below(3)).wrapping_sub(1);
            let bytes = edge.to_be_bytes();
            let end = (at + width).min(input.len());
            input[at..end].copy_from_slice(&bytes[8 - width..][..end - at]);
        }
        5 => {
            let byte = input[at].wrapping_add(1).wrapping_sub(2 * (rng.below(2) as u8));
            input[at] = byte;
        }
        6 => {
            let end = (at + 1 + rng.index(32)).min(input.len());
            let copied = input[at..end].to_vec();
            let to = rng.index(input.len());
            input.splice(to..to, copied);
        }
        _ => {
            let end = (at + 1 + rng.index(16)).min(input.len());
            input.drain(at..end);
        }
    }
}
