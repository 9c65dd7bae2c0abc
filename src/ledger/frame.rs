//! A frame: one transaction in a block.
//!
//! ```text
//!   length u32 LE │ key flag u8 │ key 40 bytes, if flagged │ count u8 and 16 bytes each, if flag 2 │ facts, postcard
//! ```
//!
//! Flag 1 is a report's key, flag 2 the key of a call with several reports: their ids follow.

use super::keys::{CallKey, KeyEntry};
use crate::meter::Fact;

/// A frame that can't be read although its block's checksum is right: written by a version this one does not know.
#[derive(Debug, thiserror::Error)]
#[error("a frame can't be read")]
pub(super) struct FrameError;

/// Appends a frame.
pub(super) fn write(out: &mut Vec<u8>, key: Option<&KeyEntry>, facts: &[Fact]) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    match key {
        None => out.push(NO_KEY),
        Some(entry) => {
            out.push(if entry.records.is_empty() {
                KEY_OF_REPORT
            } else {
                KEY_OF_CALL
            });
            out.extend_from_slice(&entry.key.hash);
            out.extend_from_slice(&entry.key.body);
            out.extend_from_slice(&entry.id);
            if !entry.records.is_empty() {
                out.push(u8::try_from(entry.records.len()).expect("a call has at most 25 reports"));
                out.extend(entry.records.iter().flatten());
            }
        }
    }
    *out = postcard::to_extend(facts, std::mem::take(out)).expect("facts serialize into memory");
    let length =
        u32::try_from(out.len() - start - LENGTH_BYTES).expect("a frame stays far below 4 GiB");
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// The frames of a payload.
pub(super) fn read(
    payload: &[u8],
) -> impl Iterator<Item = Result<(Option<KeyEntry>, Vec<Fact>), FrameError>> {
    bodies(payload).map(|body| {
        let (key, facts) = body.and_then(split_key).ok_or(FrameError)?;
        Ok((key, postcard::from_bytes(facts).map_err(|_| FrameError)?))
    })
}

/// The keys of a payload alone.
pub(super) fn keys(payload: &[u8]) -> impl Iterator<Item = KeyEntry> {
    bodies(payload).filter_map(|body| body.and_then(split_key)?.0)
}

/// `None` for the rest that is no frame.
fn bodies(mut payload: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if payload.is_empty() {
            return None;
        }
        let Some((length, rest)) = payload.split_first_chunk::<LENGTH_BYTES>() else {
            payload = &[];
            return Some(None);
        };
        let body = rest.get(..u32::from_le_bytes(*length) as usize);
        payload = body.map_or(&[], |body| &rest[body.len()..]);
        Some(body)
    })
}

fn split_key(body: &[u8]) -> Option<(Option<KeyEntry>, &[u8])> {
    let (flag, rest) = body.split_first()?;
    match *flag {
        NO_KEY => Some((None, rest)),
        flag @ (KEY_OF_REPORT | KEY_OF_CALL) => {
            let (hash, rest) = rest.split_first_chunk()?;
            let (body, rest) = rest.split_first_chunk()?;
            let (id, rest) = rest.split_first_chunk()?;
            let (records, rest) = if flag == KEY_OF_CALL {
                split_records(rest)?
            } else {
                (Vec::new(), rest)
            };
            let key = CallKey {
                hash: *hash,
                body: *body,
            };
            let entry = KeyEntry {
                key,
                id: *id,
                records,
            };
            Some((Some(entry), rest))
        }
        _ => None,
    }
}

fn split_records(rest: &[u8]) -> Option<(Vec<[u8; 16]>, &[u8])> {
    let (count, mut rest) = rest.split_first()?;
    let mut records = Vec::with_capacity((*count).into());
    for _ in 0..*count {
        let (record, behind) = rest.split_first_chunk()?;
        records.push(*record);
        rest = behind;
    }
    Some((records, rest))
}

const LENGTH_BYTES: usize = 4;
const NO_KEY: u8 = 0;
const KEY_OF_REPORT: u8 = 1;
const KEY_OF_CALL: u8 = 2;
