//! Which records of customers share a `BatchMeterUsage` request.
//!
//! Up to 25 records and under 1 MB; never records that go with a `ProductCode` beside ones that go without (API reference,
//! `BatchMeterUsage`). Full requests first: the fewest that are possible.

use super::{Request, Submission};
use crate::usage::{BucketId, Customer, Moment, TagSet, Way};

/// A record that is due.
#[derive(Clone, Debug)]
pub(super) struct Due {
    pub(super) at: Moment,
    pub(super) bucket: BucketId,
    pub(super) with_product_code: bool,
    pub(super) alone: bool,
    pub(super) bytes_max: usize,
}

impl Due {
    pub(super) fn new(at: Moment, submission: &Submission, customer: &Customer) -> Self {
        Self {
            at,
            bucket: submission.request.bucket,
            with_product_code: customer.way() != Way::License,
            alone: submission.alone,
            bytes_max: bytes_max(&submission.request),
        }
    }
}

/// Divides what is due into at most `calls_max` requests.
pub(super) fn divide(mut due: Vec<Due>, calls_max: usize) -> Vec<Vec<BucketId>> {
    due.sort_by_key(|due| (due.at, due.bucket));
    let (alone, shared): (Vec<Due>, Vec<Due>) = due.into_iter().partition(|due| due.alone);
    let mut full = Vec::new();
    let mut rest = Vec::new();
    for with_product_code in [false, true] {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for due in shared
            .iter()
            .filter(|due| due.with_product_code == with_product_code)
        {
            if bytes + due.bytes_max > BATCH_BYTES_MAX && !batch.is_empty() {
                full.push(std::mem::take(&mut batch));
                bytes = 0;
            }
            batch.push(due.bucket);
            bytes += due.bytes_max;
            if batch.len() == BATCH_RECORDS_MAX {
                full.push(std::mem::take(&mut batch));
                bytes = 0;
            }
        }
        rest.extend((!batch.is_empty()).then_some(batch));
    }
    let alone = alone.into_iter().map(|due| vec![due.bucket]);
    full.into_iter()
        .chain(rest)
        .chain(alone)
        .take(calls_max)
        .collect()
}

/// No less than the record has in a request's body.
fn bytes_max(request: &Request) -> usize {
    let parts = request.allocations.iter();
    RECORD_BYTES
        + parts
            .map(|part| part_bytes_max(part.tags.as_ref()))
            .sum::<usize>()
}

/// No less than an allocation has in a request's body.
pub(super) fn part_bytes_max(tags: Option<&TagSet>) -> usize {
    // Of what tags may hold, JSON escapes the quotation mark alone.
    let escaped = |text: &str| text.len() + text.bytes().filter(|b| *b == b'"').count();
    let tags = tags.into_iter().flat_map(TagSet::tags);
    let tags = tags.map(|tag| escaped(tag.key()) + escaped(tag.value()) + TAG_BYTES);
    PART_BYTES + tags.sum::<usize>()
}

/// API reference, UsageRecordList.
pub(super) const BATCH_RECORDS_MAX: usize = 25;
/// AWS takes under 1 MB; headers and the rest of the body stay far below what is left.
const BATCH_BYTES_MAX: usize = 950_000;
/// What the allocations of one record may have, so that it fits a request by itself.
pub(super) const PARTS_BYTES_MAX: usize = 900_000;
/// The longest names that a customer and a dimension can have, escaped, and everything around them.
const RECORD_BYTES: usize = 4_000;
const PART_BYTES: usize = 100;
const TAG_BYTES: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn due(bucket: u32, with_product_code: bool, bytes_max: usize) -> Due {
        Due {
            at: Moment::from_millis(0),
            bucket: BucketId(bucket),
            with_product_code,
            alone: false,
            bytes_max,
        }
    }

    fn sizes(due: Vec<Due>, calls_max: usize) -> Vec<usize> {
        divide(due, calls_max).iter().map(Vec::len).collect()
    }

    #[test]
    fn full_requests_go_first_and_the_rest_last() {
        let all: Vec<_> = (0..60).map(|bucket| due(bucket, false, 100)).collect();
        assert_eq!(sizes(all.clone(), 8), [25, 25, 10]);
        assert_eq!(sizes(all, 2), [25, 25]);
    }

    #[test]
    fn what_has_been_due_for_longest_goes_first() {
        let all: Vec<_> = (0..30)
            .map(|bucket| Due {
                at: Moment::from_millis(-i64::from(bucket)),
                ..due(bucket, false, 100)
            })
            .collect();
        let first: Vec<_> = (5..30).rev().map(BucketId).collect();
        assert_eq!(divide(all, 1), [first]);
    }

    #[test]
    fn records_with_and_without_a_product_code_never_share_a_request() {
        let all: Vec<_> = (0..60)
            .map(|bucket| due(bucket, bucket % 2 == 0, 100))
            .collect();
        let calls = divide(all, 8);
        assert_eq!(
            calls.iter().map(Vec::len).collect::<Vec<_>>(),
            [25, 25, 5, 5]
        );
        for call in calls {
            assert!(call.iter().all(|bucket| bucket.0 % 2 == call[0].0 % 2));
        }
    }

    #[test]
    fn a_request_stays_under_a_megabyte() {
        let all: Vec<_> = (0..5).map(|bucket| due(bucket, true, 400_000)).collect();
        assert_eq!(sizes(all, 8), [2, 2, 1]);
    }

    #[test]
    fn a_record_that_goes_alone_holds_nobody_up() {
        let mut all: Vec<_> = (0..26).map(|bucket| due(bucket, false, 100)).collect();
        all[3].alone = true;
        assert_eq!(sizes(all, 8), [25, 1]);
    }
}
