//! The portable row: eight bytes at a time in a `u64`, in safe code. Where the
//! machine has vectors of its own the compiler turns a block of words into them.

use crate::field::REDUCTION;
use crate::pass::{Output, Pass, Weights};

/// Words handled together: one cache line.
const BLOCK_WORDS: usize = 8;
const BLOCK_BYTES: usize = 8 * BLOCK_WORDS;
type Block = [u64; BLOCK_WORDS];

const TOP_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
const REDUCTIONS: u64 = u64::from_ne_bytes([REDUCTION; 8]);

/// Doubles each of the eight bytes.
fn double(word: u64) -> u64 {
    let overflow = word & TOP_BITS;
    let everywhere = overflow - (overflow >> 7); // 0x7F in each overflowing byte
    ((word ^ overflow) << 1) ^ (everywhere & REDUCTIONS)
}

/// `factor * word`, byte by byte.
fn scale(word: u64, factor: u8) -> u64 {
    let mut product = 0;
    for bit in (0..8).rev() {
        product = double(product);
        if factor >> bit & 1 == 1 {
            product ^= word;
        }
    }
    product
}

fn add(sum: &mut Block, block: &Block) {
    for (sum, word) in sum.iter_mut().zip(block) {
        *sum ^= word;
    }
}

/// Up to a block's bytes at `at`, padded with zeros.
fn load(unit: &[u8], at: usize) -> Block {
    let mut bytes = [0; BLOCK_BYTES];
    match unit.get(at..at + BLOCK_BYTES) {
        Some(whole) => bytes.copy_from_slice(whole),
        None => bytes[..unit.len() - at].copy_from_slice(&unit[at..]),
    }
    let mut block = [0; BLOCK_WORDS];
    for (word, bytes) in block.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    block
}

fn store(block: &Block, unit: &mut [u8], at: usize) {
    let mut bytes = [0; BLOCK_BYTES];
    for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(block) {
        *bytes = word.to_ne_bytes();
    }
    let length = BLOCK_BYTES.min(unit.len() - at);
    unit[at..at + length].copy_from_slice(&bytes[..length]);
}

fn finish(sum_p: &Block, sum_q: &Block, weights: Weights) -> Block {
    match weights {
        Weights::P => *sum_p,
        Weights::Q => *sum_q,
        Weights { p, q } => std::array::from_fn(|n| scale(sum_p[n], p) ^ scale(sum_q[n], q)),
    }
}

/// Both sums over the block at `at`.
fn sums(pass: &Pass<'_>, at: usize, with_q: bool) -> (Block, Block) {
    let (mut sum_p, mut sum_q) = ([0; BLOCK_WORDS], [0; BLOCK_WORDS]);
    for unit in pass.data().iter().rev() {
        if with_q {
            sum_q = sum_q.map(double);
        }
        let Some(unit) = unit else { continue };
        let block = load(unit, at);
        add(&mut sum_p, &block);
        if with_q {
            add(&mut sum_q, &block);
        }
    }
    if let Some(p) = pass.p() {
        add(&mut sum_p, &load(p, at));
    }
    if let (Some(q), true) = (pass.q(), with_q) {
        add(&mut sum_q, &load(q, at));
    }
    (sum_p, sum_q)
}

/// Runs a pass from byte position `from` to the end.
pub(crate) fn run(pass: &Pass<'_>, from: usize, mut output: Output<'_, '_>) {
    pass.admit(&output);
    let with_q = pass.needs_q(&output);
    for at in (from..pass.length_bytes()).step_by(BLOCK_BYTES) {
        let (sum_p, sum_q) = sums(pass, at, with_q);
        match &mut output {
            Output::Targets(targets) => {
                for target in targets.iter_mut() {
                    store(&finish(&sum_p, &sum_q, target.weights), target.unit, at);
                }
            }
            Output::Vanish(holds) => **holds &= sum_p.iter().chain(&sum_q).all(|&word| word == 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field;

    #[test]
    fn words_follow_the_field() {
        for factor in 0..=255u8 {
            for start in (0..=255u8).step_by(8) {
                let bytes: [u8; 8] = std::array::from_fn(|n| start + u8::try_from(n).unwrap());
                let word = u64::from_ne_bytes(bytes);
                assert_eq!(double(word).to_ne_bytes(), bytes.map(field::double));
                assert_eq!(scale(word, factor).to_ne_bytes(), bytes.map(|byte| field::multiply(factor, byte)));
            }
        }
    }
}
