use std::sync::Arc;

use super::*;
use crate::ledger::block::Draft;
use crate::ledger::disk::RealDisk;
use crate::usage::{BucketId, RecordIdSecret};

const START: Moment = Moment::from_millis(1_800_000_000_000);

/// Keys with a journal of their own.
struct Fixture {
    _directory: tempfile::TempDir,
    journal: Journal,
    keys: Keys,
    draft: Draft,
    now: Moment,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk::lock(directory.path()).unwrap());
        let journal = Journal::create(disk, 8 << 20, 1, 1).unwrap();
        Self {
            _directory: directory,
            journal,
            keys: Keys::new(),
            draft: Draft::new(),
            now: START,
        }
    }

    fn note(&mut self, number: u32) {
        let id = RecordId::new(RecordIdSecret::new([1; 16]), self.now, 0, BucketId(number));
        let entry = KeyEntry {
            key: key(number, b"body"),
            id: id.to_bytes(),
            records: Vec::new(),
        };
        frame::write(self.draft.payload(), Some(&entry), &[]);
        self.keys.note(entry);
    }

    fn commit(&mut self) {
        let place = self.journal.append(&mut self.draft).unwrap();
        self.draft.clear();
        self.keys.commit(place, self.now);
    }

    fn seen(&mut self, number: u32, body: &[u8]) -> Seen {
        self.keys
            .look_up(&self.journal, &key(number, body), self.now)
            .unwrap()
    }

    fn is_known(&mut self, number: u32) -> bool {
        match self.seen(number, b"body") {
            Seen::Same(entry) => {
                assert_eq!(
                    entry.id().bucket(RecordIdSecret::new([1; 16])),
                    Some(BucketId(number))
                );
                true
            }
            Seen::New => false,
            Seen::Conflict => panic!("key {number} taken for another"),
        }
    }
}

fn key(number: u32, body: &[u8]) -> CallKey {
    CallKey::new(KeyKind::ClientToken, &format!("token {number}"), body)
}

#[test]
fn a_key_is_known_before_and_after_its_batch_is_durable() {
    let mut fixture = Fixture::new();
    assert!(!fixture.is_known(7));
    fixture.note(7);
    assert!(fixture.is_known(7));
    assert_eq!(fixture.seen(7, b"another"), Seen::Conflict);
    fixture.commit();
    assert!(fixture.is_known(7));
    assert_eq!(fixture.seen(7, b"another"), Seen::Conflict);
}

#[test]
fn keys_of_different_kinds_are_different() {
    let kinds = [
        KeyKind::ClientToken,
        KeyKind::IdempotencyKey,
        KeyKind::InvocationId,
    ];
    let hashes: Vec<_> = kinds
        .map(|kind| CallKey::new(kind, "same", b"body").hash)
        .into();
    assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
}

#[test]
fn an_invocation_id_with_another_body_is_another_call() {
    let call = |body: &[u8]| CallKey::new(KeyKind::InvocationId, "same", body).hash;
    assert_ne!(call(b"one"), call(b"two"));
}

#[test]
fn a_key_is_forgotten_after_ten_minutes() {
    let mut fixture = Fixture::new();
    fixture.note(7);
    fixture.commit();
    fixture.now = START.plus_ms(KEPT_MS - 1);
    assert!(fixture.is_known(7));
    fixture.now = START.plus_ms(KEPT_MS);
    assert!(!fixture.is_known(7));
    assert_eq!(fixture.keys.dropped(), 0);
}

#[test]
fn beyond_half_a_million_the_oldest_go_first_and_are_counted() {
    let mut fixture = Fixture::new();
    let total = 620_000;
    for number in 0..total {
        fixture.note(number);
        if number % 1000 == 999 {
            fixture.commit();
        }
    }
    let kept = u32::try_from(KEYS_MAX).unwrap();
    for number in (total - kept..total).step_by(4001) {
        assert!(fixture.is_known(number), "{number}");
    }
    for number in (0..total - kept).step_by(4001) {
        assert!(!fixture.is_known(number), "{number}");
    }
    assert_eq!(fixture.keys.dropped(), u64::from(total - kept));
}

#[test]
fn the_journal_is_needed_from_the_oldest_key_on() {
    let mut fixture = Fixture::new();
    for number in 0..1000 {
        fixture.now = START.plus_ms(i64::from(number) * 1000);
        fixture.note(number);
        fixture.commit();
    }
    let needed = fixture.keys.needed_from(fixture.now).unwrap();
    let first = Place {
        segment: 1,
        offset: 512,
    };
    assert!(needed.offset > first.offset, "the first keys are too old");
    assert!(fixture.is_known(401) && !fixture.is_known(398));
}
