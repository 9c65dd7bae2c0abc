//! Callers' keys: a report is counted once per key, for ten minutes and up to 500,000 keys.
//!
//! The journal holds the keys; memory holds 2.5 MiB of slots that lead there. A slot is 12 bits of the key's hash and 20 bits
//! of its ordinal, the how-manieth key of the journal it is. A key may be in either of two rows of 16 slots, and goes to the
//! emptier. A slot that matches is verified by reading the journal: a hit by chance costs a read, never a wrong answer.
//! Marks, one for every 64 keys or more, lead from an ordinal to the block it is in.

use std::collections::{HashMap, VecDeque};
use std::io;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::frame;
use super::journal::{Journal, Place};
use crate::usage::{Moment, RecordId};

/// What makes a report the same as an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CallKey {
    pub(super) hash: [u8; 16],
    pub(super) body: [u8; 8],
}

/// Whose kind of key it is: equal texts of different kinds are different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// MeterUsage's `ClientToken`.
    ClientToken,
    /// `Idempotency-Key` of `POST /v1/usage`.
    IdempotencyKey,
    /// `amz-sdk-invocation-id`: the body is part of the key, since only a retry repeats both.
    InvocationId,
}

/// A key as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyEntry {
    pub(super) key: CallKey,
    /// The report's id, or the call's own.
    pub(super) id: [u8; 16],
    /// The ids of a call's reports, zeros for one that was not taken; empty for a report by itself.
    pub(super) records: Vec<[u8; 16]>,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    New,
    /// The same has been taken before.
    Same(KeyEntry),
    /// Another report has been taken under this key.
    Conflict,
}

/// The keys that are remembered.
pub(super) struct Keys {
    slots: Vec<u32>,
    marks: VecDeque<Mark>,
    /// The ordinal of the next key.
    next: u64,
    /// The first ordinal that counts.
    oldest: u64,
    swept: usize,
    /// Keys of the batch that is not durable yet.
    pending: HashMap<[u8; 16], KeyEntry>,
    order: Vec<[u8; 16]>,
    dropped: u64,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    first: u64,
    place: Place,
    at: Moment,
}

impl CallKey {
    /// A key of its kind, and the body that came under it.
    pub fn new(kind: KeyKind, key: &str, body: &[u8]) -> Self {
        let body = Sha256::digest(body);
        let mut hash = Sha256::new();
        hash.update([kind as u8]);
        hash.update(key.as_bytes());
        if kind == KeyKind::InvocationId {
            hash.update(body);
        }
        let hash = hash.finalize();
        let mut made = Self {
            hash: [0; 16],
            body: [0; 8],
        };
        made.hash.copy_from_slice(&hash[..16]);
        made.body.copy_from_slice(&body[..8]);
        made
    }
}

impl KeyEntry {
    pub(super) fn id(&self) -> RecordId {
        RecordId::from_bytes(self.id)
    }

    fn compare(&self, key: &CallKey) -> Seen {
        if self.key.body == key.body {
            Seen::Same(self.clone())
        } else {
            Seen::Conflict
        }
    }
}

impl Keys {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![0; ROWS * ROW_SLOTS],
            marks: VecDeque::new(),
            next: 1,
            oldest: 1,
            swept: 0,
            pending: HashMap::new(),
            order: Vec::new(),
            dropped: 0,
        }
    }

    /// How many keys were forgotten before their ten minutes.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn look_up(
        &mut self,
        journal: &Journal,
        key: &CallKey,
        now: Moment,
    ) -> io::Result<Seen> {
        if let Some(entry) = self.pending.get(&key.hash) {
            return Ok(entry.compare(key));
        }
        self.expire(now);
        let (tag, rows) = place_of(&key.hash);
        for row in rows {
            for slot in &self.slots[row * ROW_SLOTS..(row + 1) * ROW_SLOTS] {
                let Some(ordinal) = self.live(*slot).filter(|_| slot >> ORDINAL_BITS == tag) else {
                    continue;
                };
                let Some(entry) = self.read(journal, ordinal)? else {
                    continue;
                };
                if entry.key.hash == key.hash && now.ms_since(entry.id().moment()) < KEPT_MS {
                    return Ok(entry.compare(key));
                }
            }
        }
        Ok(Seen::New)
    }

    /// Notes a key of the batch that is being written.
    pub(super) fn note(&mut self, entry: KeyEntry) {
        self.order.push(entry.key.hash);
        self.pending.insert(entry.key.hash, entry);
    }

    /// The batch is durable, at `place`.
    pub(super) fn commit(&mut self, place: Place, now: Moment) {
        self.pending.clear();
        let mut order = std::mem::take(&mut self.order);
        self.insert(place, now, order.drain(..));
        self.order = order;
    }

    /// Takes the keys of one block in, by their hashes, live or in replay.
    pub(super) fn insert(
        &mut self,
        place: Place,
        at: Moment,
        hashes: impl Iterator<Item = [u8; 16]>,
    ) {
        let mut first = true;
        for hash in hashes {
            if std::mem::take(&mut first)
                && self
                    .marks
                    .back()
                    .is_none_or(|mark| self.next - mark.first >= MARK_KEYS)
            {
                self.marks.push_back(Mark {
                    first: self.next,
                    place,
                    at,
                });
            }
            self.insert_one(&hash);
        }
    }

    /// The place from which on the journal is still needed.
    pub(super) fn needed_from(&mut self, now: Moment) -> Option<Place> {
        self.expire(now);
        (self.oldest < self.next)
            .then(|| self.marks.front().map(|mark| mark.place))
            .flatten()
    }

    fn insert_one(&mut self, hash: &[u8; 16]) {
        let (tag, rows) = place_of(hash);
        self.sweep();
        if self.next - self.oldest >= KEYS_MAX {
            self.oldest = self.next - KEYS_MAX + 1;
            self.dropped += 1;
            self.forget_marks();
        }
        let free = |row: usize| {
            let slots = &self.slots[row * ROW_SLOTS..(row + 1) * ROW_SLOTS];
            slots
                .iter()
                .filter(|slot| self.live(**slot).is_none())
                .count()
        };
        let row = if free(rows[0]) >= free(rows[1]) {
            rows[0]
        } else {
            rows[1]
        };
        let slots = row * ROW_SLOTS..(row + 1) * ROW_SLOTS;
        let empty = slots
            .clone()
            .find(|slot| self.live(self.slots[*slot]).is_none());
        let slot = empty.unwrap_or_else(|| {
            self.dropped += 1;
            slots
                .min_by_key(|slot| self.live(self.slots[*slot]))
                .expect("a row has slots")
        });
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the low 20 bits are what a slot keeps"
        )]
        let ordinal = self.next as u32 & ORDINAL_MASK;
        self.slots[slot] = tag << ORDINAL_BITS | ordinal;
        self.next += 1;
    }

    /// The ordinal in a slot, if that key still counts.
    fn live(&self, slot: u32) -> Option<u64> {
        if slot == 0 {
            return None;
        }
        let behind = (self.next.wrapping_sub(1)).wrapping_sub(u64::from(slot & ORDINAL_MASK))
            & u64::from(ORDINAL_MASK);
        let ordinal = (self.next - 1).checked_sub(behind)?;
        (ordinal >= self.oldest).then_some(ordinal)
    }

    /// Clears two slots' worth of what no longer counts, so that none outlives the ordinals' range and looks alive again.
    fn sweep(&mut self) {
        for _ in 0..2 {
            if self.live(self.slots[self.swept]).is_none() {
                self.slots[self.swept] = 0;
            }
            self.swept = (self.swept + 1) % self.slots.len();
        }
    }

    fn expire(&mut self, now: Moment) {
        while let (Some(_), Some(second)) = (self.marks.front(), self.marks.get(1))
            && now.ms_since(second.at) >= KEPT_MS
        {
            self.oldest = self.oldest.max(second.first);
            self.marks.pop_front();
        }
    }

    fn forget_marks(&mut self) {
        while self
            .marks
            .get(1)
            .is_some_and(|second| second.first <= self.oldest)
        {
            self.marks.pop_front();
        }
    }

    fn read(&self, journal: &Journal, ordinal: u64) -> io::Result<Option<KeyEntry>> {
        let index = self.marks.partition_point(|mark| mark.first <= ordinal);
        let Some(mark) = index.checked_sub(1).and_then(|index| self.marks.get(index)) else {
            return Ok(None);
        };
        let mut skip = ordinal - mark.first;
        journal.read_from(mark.place, |payload| {
            for entry in frame::keys(payload) {
                if skip == 0 {
                    return Some(entry);
                }
                skip -= 1;
            }
            None
        })
    }
}

/// The tag of a hash, never zero, and its two rows.
fn place_of(hash: &[u8; 16]) -> (u32, [usize; 2]) {
    let word = |at: usize| u32::from_le_bytes([hash[at], hash[at + 1], hash[at + 2], hash[at + 3]]);
    let tag = (word(0) & TAG_MASK).max(1);
    let row = |at: usize| word(at) as usize % ROWS;
    (tag, [row(4), row(8)])
}

/// Design: ten minutes; SDK retries end within seconds.
const KEPT_MS: i64 = 600_000;
/// Design: up to so many keys.
const KEYS_MAX: u64 = 500_000;
const MARK_KEYS: u64 = 64;
const ORDINAL_BITS: u32 = 20;
const ORDINAL_MASK: u32 = (1 << ORDINAL_BITS) - 1;
const TAG_MASK: u32 = 0xfff;
/// A cache line of slots.
const ROW_SLOTS: usize = 16;
/// Three quarters full with all keys in.
const ROWS: usize = 40_960;

#[cfg(test)]
mod tests;
