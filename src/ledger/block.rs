//! The journal's unit of durability: what one write and one sync make permanent.
//!
//! ```text
//!   0           4           8           12          16                 16+length
//!  ┌───────────┬───────────┬───────────┬───────────┬──────────────────┬────────────┐
//!  │header crc │payload crc│ length    │ sequence  │ payload: frames  │ fill, 0xA5 │  to a multiple of 16, at least 4
//!  └───────────┴───────────┴───────────┴───────────┴──────────────────┴────────────┘
//! ```
//!
//! Both checksums are CRC-32 over the segment's salt and then their part, so that nothing which a report carries, and no
//! block of another segment, can pass for a block. All numbers are little-endian; `sequence` is the low half of the block's
//! number.
//!
//! A segment is all zeros beyond its last block, and made durable so before it is written to. This tells a block that was
//! never acknowledged, because its write did not end, from one that was damaged later:
//!
//! | what is found in a block's place | how it came about | what it is |
//! |---|---|---|
//! | zeros to the segment's end | nothing was written | the end |
//! | a sector of the block is still zero | the write did not end before the machine did | torn: never acknowledged |
//! | every sector was written, a checksum is wrong | a write that ended has changed since | damage |
//! | any of these, and a good block behind it | a block is only written after the one before is durable | damage |
//!
//! A sector (512 bytes) is what a disk writes whole. Blocks begin at multiples of 16, so a header lies in one sector.

use crc32fast::Hasher;

/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = 16;
/// What a disk writes whole.
pub(super) const SECTOR_BYTES: usize = 512;

/// The checksum seed of one segment.
#[derive(Clone, Debug)]
pub(super) struct Salt(Hasher);

/// A block under construction: room for the header, then the payload as it comes.
#[derive(Debug)]
pub(super) struct Draft(Vec<u8>);

/// What is in a block's place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A good block; the next begins at `end`.
    Block {
        payload: std::ops::Range<usize>,
        end: usize,
    },
    /// Nothing was written here or behind.
    End,
    /// A write that did not end; what it left lies before `end`.
    Torn { end: usize },
    /// Something that was durable has changed.
    Damaged(&'static str),
}

impl Salt {
    pub(super) fn new(salt: &[u8; 16]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(salt);
        Self(hasher)
    }

    pub(super) fn checksum(&self, bytes: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(bytes);
        hasher.finalize()
    }
}

impl Draft {
    pub(super) fn new() -> Self {
        Self(vec![0; HEADER_BYTES])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == HEADER_BYTES
    }

    /// Bytes of the whole block, were it finished now.
    pub(super) fn len(&self) -> usize {
        extent(self.0.len() - HEADER_BYTES)
    }

    pub(super) fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    pub(super) fn seal(&mut self, salt: &Salt, sequence: u64) -> &[u8] {
        let length = self.0.len() - HEADER_BYTES;
        let payload_crc = salt.checksum(&self.0[HEADER_BYTES..]);
        self.0.resize(extent(length), FILL);
        self.0[4..8].copy_from_slice(&payload_crc.to_le_bytes());
        let length = u32::try_from(length).expect("a batch is bounded far below 4 GiB");
        self.0[8..12].copy_from_slice(&length.to_le_bytes());
        self.0[12..16].copy_from_slice(&low(sequence).to_le_bytes());
        let header_crc = salt.checksum(&self.0[4..16]);
        self.0[..4].copy_from_slice(&header_crc.to_le_bytes());
        &self.0
    }

    /// Empties it, and keeps no more memory than most batches need.
    pub(super) fn clear(&mut self) {
        self.0.truncate(HEADER_BYTES);
        self.0.shrink_to(DRAFT_BYTES_KEPT);
    }
}

/// Looks at what is at `at` in a segment whose next block would be number `sequence`.
pub(super) fn find(segment: &[u8], at: usize, salt: &Salt, sequence: u64) -> Found {
    let found = look(segment, at, salt, sequence);
    if matches!(found, Found::Torn { .. }) && good_block_follows(segment, at, salt, sequence) {
        return Found::Damaged("a block can't be read, and a later one can");
    }
    found
}

fn look(segment: &[u8], at: usize, salt: &Salt, sequence: u64) -> Found {
    let Some(header) = segment.get(at..at + HEADER_BYTES) else {
        return Found::Damaged("the file ends where a block must fit");
    };
    if is_zero(header) {
        return match segment[at..].iter().rposition(|byte| *byte != 0) {
            None => Found::End,
            Some(last) => Found::Torn { end: at + last + 1 },
        };
    }
    if number(header, 0) != salt.checksum(&header[4..]) {
        return Found::Damaged("a block's header has changed");
    }
    if number(header, 12) != low(sequence) {
        return Found::Damaged("a block is out of sequence");
    }
    let length = number(header, 8) as usize;
    let end = at + extent(length);
    let payload = at + HEADER_BYTES..at + HEADER_BYTES + length;
    let Some(block) = segment.get(at..end) else {
        return Found::Damaged("the file ends within a block");
    };
    if salt.checksum(&segment[payload.clone()]) == number(header, 4) {
        return Found::Block { payload, end };
    }
    let mut sectors = Sectors { block, at };
    if sectors.any(is_zero) {
        Found::Torn { end }
    } else {
        Found::Damaged("a block's content has changed")
    }
}

/// Whether a whole and good block lies anywhere behind the one at `at`.
fn good_block_follows(segment: &[u8], at: usize, salt: &Salt, sequence: u64) -> bool {
    (at + ALIGNMENT..segment.len().saturating_sub(HEADER_BYTES))
        .step_by(ALIGNMENT)
        .any(|offset| {
            let header = &segment[offset..offset + HEADER_BYTES];
            let ahead = number(header, 12).wrapping_sub(low(sequence));
            ahead != 0
                && number(header, 0) == salt.checksum(&header[4..])
                && matches!(
                    look(segment, offset, salt, sequence + u64::from(ahead)),
                    Found::Block { .. }
                )
        })
}

/// The parts of a block by the sector they are in.
struct Sectors<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Sectors<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.block.is_empty() {
            return None;
        }
        let room = SECTOR_BYTES - self.at % SECTOR_BYTES;
        let (sector, rest) = self.block.split_at(room.min(self.block.len()));
        self.at += sector.len();
        self.block = rest;
        Some(sector)
    }
}

pub(super) fn extent(length: usize) -> usize {
    (HEADER_BYTES + length + FILL_BYTES_MIN).next_multiple_of(ALIGNMENT)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is stored"
)]
fn low(sequence: u64) -> u32 {
    sequence as u32
}

const ALIGNMENT: usize = 16;
const FILL: u8 = 0xa5;
/// So that the last sector of a finished block is never zero.
const FILL_BYTES_MIN: usize = 4;
const DRAFT_BYTES_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn salt() -> Salt {
        Salt::new(&[3; 16])
    }

    fn segment(payloads: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for (sequence, payload) in payloads.iter().enumerate() {
            let mut draft = Draft::new();
            draft.payload().extend_from_slice(payload);
            bytes.extend_from_slice(draft.seal(&salt(), sequence as u64));
            ends.push(bytes.len());
        }
        bytes.resize(bytes.len() + 4096, 0);
        (bytes, ends)
    }

    #[test]
    fn blocks_are_found_in_sequence_and_then_the_end() {
        let (bytes, ends) = segment(&[b"one", &[7; 3000]]);
        assert_eq!(
            find(&bytes, 0, &salt(), 0),
            Found::Block {
                payload: 16..19,
                end: ends[0]
            }
        );
        let payload = ends[0] + 16..ends[0] + 3016;
        assert_eq!(
            find(&bytes, ends[0], &salt(), 1),
            Found::Block {
                payload,
                end: ends[1]
            }
        );
        assert_eq!(find(&bytes, ends[1], &salt(), 2), Found::End);
    }

    #[test]
    fn every_flipped_bit_of_a_block_is_damage() {
        let (bytes, ends) = segment(&[b"one", &[7; 1200]]);
        for at in 0..ends[1] * 8 {
            let mut altered = bytes.clone();
            altered[at / 8] ^= 1 << (at % 8);
            let first = find(&altered, 0, &salt(), 0);
            let second = find(&altered, ends[0], &salt(), 1);
            let fill = at / 8 >= 19 && at / 8 < ends[0] || at / 8 >= ends[0] + 1216;
            let damaged = [first, second]
                .iter()
                .any(|found| matches!(found, Found::Damaged(_)));
            assert_eq!(damaged, !fill, "bit {at}");
        }
    }

    #[test]
    fn a_block_with_an_unwritten_sector_is_torn() {
        let (bytes, ends) = segment(&[b"one", &[7; 3000]]);
        for sector in 1..=5 {
            let mut torn = bytes.clone();
            torn[sector * SECTOR_BYTES..ends[1].min((sector + 1) * SECTOR_BYTES)].fill(0);
            assert_eq!(
                find(&torn, ends[0], &salt(), 1),
                Found::Torn { end: ends[1] },
                "sector {sector}"
            );
        }
        let mut torn = bytes.clone();
        torn[ends[0]..SECTOR_BYTES].fill(0);
        assert!(
            matches!(find(&torn, ends[0], &salt(), 1), Found::Torn { .. }),
            "the header's sector"
        );
    }

    #[test]
    fn an_unreadable_block_before_a_good_one_is_damage() {
        let (mut bytes, ends) = segment(&[&[7; 3000], b"two"]);
        bytes[512..1024].fill(0);
        assert!(matches!(find(&bytes, 0, &salt(), 0), Found::Damaged(_)));
        bytes[..ends[0]].fill(0);
        assert!(matches!(find(&bytes, 0, &salt(), 0), Found::Damaged(_)));
    }

    #[test]
    fn a_file_cut_anywhere_is_damage() {
        let (bytes, ends) = segment(&[b"one", &[7; 1200]]);
        for cut in 0..ends[1] + HEADER_BYTES {
            let found = [
                find(&bytes[..cut], 0, &salt(), 0),
                find(&bytes[..cut], ends[0], &salt(), 1),
            ];
            let end = (cut >= ends[1]).then(|| find(&bytes[..cut], ends[1], &salt(), 2));
            let damaged = found
                .iter()
                .chain(&end)
                .any(|found| matches!(found, Found::Damaged(_)));
            assert!(damaged, "cut at {cut}");
        }
    }

    #[test]
    fn a_block_of_another_segment_is_no_block() {
        let (bytes, _) = segment(&[b"one"]);
        assert!(matches!(
            find(&bytes, 0, &Salt::new(&[4; 16]), 0),
            Found::Damaged(_)
        ));
    }
}
