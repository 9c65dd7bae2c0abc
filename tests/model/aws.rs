//! The part of AWS that bills: one unchangeable record per identity, dimension and hour.

use std::collections::BTreeMap;

use tollgate::meter::{Answer, Request};
use tollgate::usage::{BucketId, Dimension, Hour, Identity, Moment, Period, Quantity};

/// A record, and the bucket it came from; none for one that something else has sent.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) bucket: Option<BucketId>,
    pub(crate) quantity: Quantity,
    pub(crate) id: String,
}

#[derive(Debug, Default)]
pub(crate) struct Aws {
    pub(crate) records: BTreeMap<(Identity, Dimension, Hour), Record>,
}

impl Aws {
    pub(crate) fn receive(
        &mut self,
        now: Moment,
        identity: &Identity,
        request: &Request,
    ) -> Answer {
        let age = now.ms_since(request.timestamp);
        if !(-300_000..=6 * 3_600_000).contains(&age) {
            return Answer::OutOfBounds;
        }
        let key = (
            identity.clone(),
            request.key.dimension.clone(),
            Period::HOUR.hour_of(request.timestamp),
        );
        let id = format!("aws-{}", self.records.len());
        let record = self.records.entry(key).or_insert_with(|| Record {
            bucket: Some(request.bucket),
            quantity: request.quantity,
            id,
        });
        if record.quantity != request.quantity {
            return Answer::Duplicate;
        }
        assert!(
            record.bucket.is_none_or(|bucket| bucket == request.bucket),
            "two submissions for one hour: the second is taken for a repeat of the first, and lost"
        );
        Answer::Recorded {
            aws_id: record.id.clone(),
        }
    }

    /// Something else meters under the same identity.
    pub(crate) fn take_hour(&mut self, identity: &Identity, dimension: &Dimension, hour: Hour) {
        self.records
            .entry((identity.clone(), dimension.clone(), hour))
            .or_insert_with(|| Record {
                bucket: None,
                quantity: Quantity::from_millionths(999_999_999_999).unwrap(),
                id: "elsewhere".to_owned(),
            });
    }

    pub(crate) fn billed(&self, dimension: &Dimension) -> u128 {
        self.records
            .iter()
            .filter(|((_, billed, _), record)| billed == dimension && record.bucket.is_some())
            .map(|(_, record)| u128::from(record.quantity.millionths()))
            .sum()
    }
}
