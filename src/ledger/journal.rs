//! The journal: segments of blocks, appended to and synced before anything is acknowledged.
//!
//! ```text
//!   journal-0000000007                            journal-0000000008
//!  ┌────────┬───────┬───────┬─────┬──────────┐   ┌────────┬───────┬───────┬───────────────
//!  │ header │ block │ block │ ... │ continues│   │ header │ block │ block │ 0 0 0 0 0 ...
//!  └────────┴───────┴───────┴─────┴──────────┘   └────────┴───────┴───────┴───────────────
//! ```
//!
//! A segment grows by zeros that are durable before a block is written over them, so that a block's own sync changes no
//! metadata. Its last block is empty and says that the next segment exists: one without it is the journal's last. A segment
//! goes when the checkpoint has all of it and no key in it is remembered any more.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::block::{self, Draft, Found, HEADER_BYTES, SECTOR_BYTES, Salt};
use super::disk::{Disk, DiskFile};

/// The journal, open for appending.
pub(super) struct Journal {
    disk: Arc<dyn Disk>,
    /// How large a segment becomes before the next one begins.
    segment_bytes: usize,
    segments: Vec<Segment>,
    file: Arc<dyn DiskFile>,
    salt: Salt,
    /// Where the next block goes, in the last segment.
    tail: usize,
    /// How far the last segment's zeros are durable.
    zeroed: usize,
    /// The number of the next block.
    sequence: u64,
}

/// One file of the journal.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    first_sequence: u64,
    file: Arc<dyn DiskFile>,
    salt: Salt,
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

/// A journal that can't be read back.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error("journal segment {segment}, byte {offset}: {what}")]
    Damaged {
        segment: u32,
        offset: usize,
        what: &'static str,
    },
    #[error("the journal can't be read or written")]
    Io(#[from] io::Error),
}

/// What recovery hands over block by block.
pub(super) struct Replayed<'a> {
    pub(super) sequence: u64,
    pub(super) place: Place,
    pub(super) payload: &'a [u8],
}

impl Journal {
    /// Starts a journal whose first block is number `sequence`. Its content is durable, its name only after [`Disk::sync`].
    pub(super) fn create(
        disk: Arc<dyn Disk>,
        segment_bytes: usize,
        number: u32,
        sequence: u64,
    ) -> io::Result<Self> {
        let segment = Segment::create(&*disk, segment_bytes, number, sequence)?;
        let (file, salt) = (segment.file.clone(), segment.salt.clone());
        Ok(Self {
            disk,
            segment_bytes,
            segments: vec![segment],
            file,
            salt,
            tail: SECTOR_BYTES,
            zeroed: SECTOR_BYTES + growth(segment_bytes),
            sequence,
        })
    }

    /// Opens what is there and hands every good block to `replay`. The segments `needed` must be there at least.
    pub(super) fn recover<E: From<JournalError>>(
        disk: Arc<dyn Disk>,
        segment_bytes: usize,
        needed: RangeInclusive<u32>,
        mut replay: impl FnMut(Replayed<'_>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut numbers = segment_numbers(&disk.list().map_err(JournalError::from)?);
        numbers.sort_unstable();
        let damaged = |segment, what| {
            E::from(JournalError::Damaged {
                segment,
                offset: 0,
                what,
            })
        };
        if let Some(missing) = needed.clone().find(|number| !numbers.contains(number)) {
            return Err(damaged(missing, "the segment is missing"));
        }
        let mut segments: Vec<Segment> = Vec::new();
        let mut end = None;
        // One buffer for all: freed in one piece, it leaves no memory behind.
        let mut bytes = Vec::new();
        for number in numbers {
            let file = disk.open(&name(number)).map_err(JournalError::from)?;
            read_all(&*file, &mut bytes).map_err(JournalError::from)?;
            if let Some(End {
                continues: false, ..
            }) = end
            {
                discard_unused(&*disk, number, &bytes)?;
                continue;
            }
            let expected = segments.last().map(|last| {
                (
                    last.number + 1,
                    end.as_ref().map_or(0, |end: &End| end.sequence),
                )
            });
            let Some((first_sequence, salt)) = read_header(&bytes, number) else {
                return Err(damaged(number, "the header can't be read"));
            };
            if expected.is_some_and(|expected| expected != (number, first_sequence)) {
                return Err(damaged(
                    number,
                    "the segment does not follow on the one before",
                ));
            }
            let segment = Segment {
                number,
                first_sequence,
                file,
                salt,
            };
            let replayed = segment.replay(&bytes, &mut replay)?;
            segment.secure(&replayed).map_err(JournalError::from)?;
            end = Some(replayed);
            segments.push(segment);
        }
        let (Some(end), Some(last)) = (end, segments.last().cloned()) else {
            return Err(damaged(*needed.end(), "the segment is missing"));
        };
        if end.continues {
            return Err(damaged(last.number + 1, "the segment is missing"));
        }
        let (file, salt) = (last.file, last.salt);
        Ok(Self {
            disk,
            segment_bytes,
            segments,
            file,
            salt,
            tail: end.tail,
            zeroed: end.len,
            sequence: end.sequence,
        })
    }

    /// The number of the last block that is durable.
    pub(super) fn last_sequence(&self) -> u64 {
        self.sequence - 1
    }

    /// The segment that blocks go to.
    pub(super) fn active(&self) -> u32 {
        self.segments.last().map_or(0, |segment| segment.number)
    }

    /// Makes a block permanent: when this returns, it is.
    pub(super) fn append(&mut self, draft: &mut Draft) -> io::Result<Place> {
        if self.tail > SECTOR_BYTES && self.tail + draft.len() > self.segment_bytes {
            self.roll()?;
        }
        self.write(draft)
    }

    /// Removes the segments before `oldest`.
    pub(super) fn trim(&mut self, oldest: u32) -> io::Result<()> {
        while self.segments.len() > 1 && self.segments[0].number < oldest {
            let segment = self.segments.remove(0);
            self.disk.remove(&name(segment.number))?;
            // One at a time: a removal that is lost must not leave a gap.
            self.disk.sync()?;
        }
        Ok(())
    }

    /// The number of the first block that is still there.
    pub(super) fn oldest_sequence(&self) -> u64 {
        self.segments
            .first()
            .map_or(self.sequence, |segment| segment.first_sequence)
    }

    /// Reads the payloads of blocks from `place` on, until `visit` returns something. Their checksums were checked, or made,
    /// by this process.
    pub(super) fn read_from<T>(
        &self,
        place: Place,
        mut visit: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let mut offset = place.offset as usize;
        for segment in self
            .segments
            .iter()
            .filter(|segment| segment.number >= place.segment)
        {
            let active = segment.number == self.active();
            loop {
                let mut header = [0; HEADER_BYTES];
                if active && offset >= self.tail {
                    return Ok(None);
                }
                segment.file.read_at(&mut header, offset as u64)?;
                let length =
                    u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
                if length == 0 {
                    break;
                }
                let mut payload = vec![0; length];
                segment
                    .file
                    .read_at(&mut payload, (offset + HEADER_BYTES) as u64)?;
                if let Some(found) = visit(&payload) {
                    return Ok(Some(found));
                }
                offset += block::extent(length);
            }
            offset = SECTOR_BYTES;
        }
        Ok(None)
    }

    fn write(&mut self, draft: &mut Draft) -> io::Result<Place> {
        self.make_room(draft.len())?;
        let bytes = draft.seal(&self.salt, self.sequence);
        self.file.write_at(bytes, self.tail as u64)?;
        self.file.sync()?;
        let offset = u32::try_from(self.tail).expect("segments stay far below 4 GiB");
        self.tail += bytes.len();
        self.sequence += 1;
        Ok(Place {
            segment: self.active(),
            offset,
        })
    }

    /// Zeros for the block and for the header of the next, durable before the block is written.
    fn make_room(&mut self, len: usize) -> io::Result<()> {
        let needed = self.tail + len + HEADER_BYTES;
        while self.zeroed < needed {
            let zeros = vec![0; growth(self.segment_bytes)];
            self.file.write_at(&zeros, self.zeroed as u64)?;
            self.zeroed += zeros.len();
            if self.zeroed >= needed {
                self.file.sync()?;
            }
        }
        Ok(())
    }

    /// Goes on in a new segment, which is durable before the old one says so.
    fn roll(&mut self) -> io::Result<()> {
        let next = Segment::create(
            &*self.disk,
            self.segment_bytes,
            self.active() + 1,
            self.sequence + 1,
        )?;
        self.disk.sync()?;
        self.write(&mut Draft::new())?;
        self.file = next.file.clone();
        self.salt = next.salt.clone();
        self.tail = SECTOR_BYTES;
        self.zeroed = SECTOR_BYTES + growth(self.segment_bytes);
        self.segments.push(next);
        Ok(())
    }
}

/// Where a segment's blocks end.
struct End {
    tail: usize,
    len: usize,
    /// The number of the block after the last.
    sequence: u64,
    /// Where the last block begins, if there is one.
    last: Option<std::ops::Range<usize>>,
    last_block: Vec<u8>,
    /// What an unfinished write left before this; zeros from here on.
    torn: Option<usize>,
    continues: bool,
}

impl Segment {
    fn create(
        disk: &dyn Disk,
        segment_bytes: usize,
        number: u32,
        first_sequence: u64,
    ) -> io::Result<Self> {
        let mut salt = [0; 16];
        fastrand::Rng::new().fill(&mut salt);
        let file = disk.open(&name(number))?;
        file.set_len(0)?;
        file.write_at(&header(number, first_sequence, salt), 0)?;
        file.write_at(&vec![0; growth(segment_bytes)], SECTOR_BYTES as u64)?;
        file.sync()?;
        Ok(Self {
            number,
            first_sequence,
            file,
            salt: Salt::new(&salt),
        })
    }

    fn replay<E: From<JournalError>>(
        &self,
        bytes: &[u8],
        replay: &mut impl FnMut(Replayed<'_>) -> Result<(), E>,
    ) -> Result<End, E> {
        let mut end = End {
            tail: SECTOR_BYTES,
            len: bytes.len(),
            sequence: self.first_sequence,
            last: None,
            last_block: Vec::new(),
            torn: None,
            continues: false,
        };
        loop {
            match block::find(bytes, end.tail, &self.salt, end.sequence) {
                Found::Block { payload, end: next } => {
                    if end.continues {
                        let what = "a block follows the segment's last";
                        return Err(JournalError::Damaged {
                            segment: self.number,
                            offset: end.tail,
                            what,
                        }
                        .into());
                    }
                    end.continues = payload.is_empty();
                    end.last = Some(end.tail..next);
                    let offset = u32::try_from(end.tail).unwrap_or(u32::MAX);
                    let place = Place {
                        segment: self.number,
                        offset,
                    };
                    replay(Replayed {
                        sequence: end.sequence,
                        place,
                        payload: &bytes[payload],
                    })?;
                    end.tail = next;
                    end.sequence += 1;
                }
                Found::End => break,
                Found::Torn { end: torn } => {
                    end.torn = Some(torn);
                    break;
                }
                Found::Damaged(what) => {
                    return Err(JournalError::Damaged {
                        segment: self.number,
                        offset: end.tail,
                        what,
                    }
                    .into());
                }
            }
        }
        end.last_block = end
            .last
            .clone()
            .map(|range| bytes[range].to_vec())
            .unwrap_or_default();
        Ok(end)
    }

    /// Makes what was read permanent, zeros included, and zeros what an unfinished write left. The last block and the zeros
    /// behind it may be known to the page cache only: their sync may have failed in the process before.
    fn secure(&self, end: &End) -> io::Result<()> {
        if let Some(torn) = end.torn {
            tracing::warn!(
                segment = self.number,
                bytes = torn - end.tail,
                "discarded an unfinished journal write; nothing in it was acknowledged"
            );
        }
        if let Some(last) = &end.last {
            self.file.write_at(&end.last_block, last.start as u64)?;
        }
        let mut at = end.tail;
        while at < end.len {
            let zeros = vec![0; (end.len - at).min(GROWTH_BYTES)];
            self.file.write_at(&zeros, at as u64)?;
            at += zeros.len();
        }
        self.file.sync()
    }
}

/// Whether the directory holds a journal in which something was written.
pub(super) fn has_blocks(disk: &dyn Disk, names: &[String]) -> io::Result<bool> {
    let mut bytes = Vec::new();
    for number in segment_numbers(names) {
        read_all(&*disk.open(&name(number))?, &mut bytes)?;
        if bytes.iter().skip(SECTOR_BYTES).any(|byte| *byte != 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a file belongs to the journal.
pub(super) fn is_segment(name: &str) -> bool {
    segment_numbers(std::slice::from_ref(&name.to_owned())).len() == 1
}

/// A segment behind the last one was being made when the process ended: nothing can be in it.
fn discard_unused(disk: &dyn Disk, number: u32, bytes: &[u8]) -> Result<(), JournalError> {
    if bytes.iter().skip(SECTOR_BYTES).any(|byte| *byte != 0) {
        let what = "the segment has blocks, and the one before does not end";
        return Err(JournalError::Damaged {
            segment: number,
            offset: SECTOR_BYTES,
            what,
        });
    }
    disk.remove(&name(number))?;
    Ok(disk.sync()?)
}

fn segment_numbers(names: &[String]) -> Vec<u32> {
    names
        .iter()
        .filter_map(|name| name.strip_prefix(PREFIX))
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn name(number: u32) -> String {
    format!("{PREFIX}{number:010}")
}

fn header(number: u32, first_sequence: u64, salt: [u8; 16]) -> [u8; SECTOR_BYTES] {
    let mut bytes = [0; SECTOR_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&number.to_le_bytes());
    bytes[12..20].copy_from_slice(&first_sequence.to_le_bytes());
    bytes[20..36].copy_from_slice(&salt);
    let crc = crc32fast::hash(&bytes[..36]);
    bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn read_header(bytes: &[u8], number: u32) -> Option<(u64, Salt)> {
    let found = bytes.get(..SECTOR_BYTES)?;
    let first_sequence = u64::from_le_bytes(found[12..20].try_into().ok()?);
    let salt = found[20..36].try_into().ok()?;
    (found == header(number, first_sequence, salt)).then(|| (first_sequence, Salt::new(&salt)))
}

fn read_all(file: &dyn DiskFile, bytes: &mut Vec<u8>) -> io::Result<()> {
    let len = usize::try_from(file.size()?).map_err(io::Error::other)?;
    bytes.resize(len, 0);
    file.read_at(bytes, 0)
}

/// By how much a segment grows.
fn growth(segment_bytes: usize) -> usize {
    (segment_bytes / 4).clamp(SECTOR_BYTES, GROWTH_BYTES)
}

const PREFIX: &str = "journal-";
const MAGIC: &[u8; 8] = b"tollgat1";
/// A segment grows by so much: one more sync for some three thousand reports.
const GROWTH_BYTES: usize = 256 * 1024;
