//! What AWS bills: one unchangeable record per payer, dimension and hour.

use std::collections::BTreeMap;

use tollgate::meter::{Answer, Request};
use tollgate::usage::{BucketId, Dimension, Hour, Period, Quantity};

/// A record, and the bucket it came from; none for one that something else has sent.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) bucket: Option<BucketId>,
    pub(crate) quantity: Quantity,
    pub(crate) id: String,
}

/// The records of payers, whom AWS tells apart.
#[derive(Debug)]
pub(crate) struct Bill<P> {
    pub(crate) records: BTreeMap<(P, Dimension, Hour), Record>,
}

impl<P> Default for Bill<P> {
    fn default() -> Self {
        Self {
            records: BTreeMap::new(),
        }
    }
}

impl<P: Ord> Bill<P> {
    /// The record of the request's hour, which the first request makes.
    pub(crate) fn take(&mut self, payer: P, request: &Request) -> Answer {
        let hour = Period::HOUR.hour_of(request.timestamp);
        let key = (payer, request.key.dimension.clone(), hour);
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

    /// Something else meters for the same payer.
    pub(crate) fn take_hour(&mut self, payer: P, dimension: Dimension, hour: Hour) {
        self.records
            .entry((payer, dimension, hour))
            .or_insert_with(|| Record {
                bucket: None,
                quantity: Quantity::from_millionths(999_999_999_999).unwrap(),
                id: "elsewhere".to_owned(),
            });
    }

    /// What the meter's records of a dimension come to, in millionths, for the payers that `is_billed` names.
    pub(crate) fn billed(&self, dimension: &Dimension, is_billed: impl Fn(&P) -> bool) -> u128 {
        self.records
            .iter()
            .filter(|((payer, of, _), record)| {
                is_billed(payer) && of == dimension && record.bucket.is_some()
            })
            .map(|(_, record)| u128::from(record.quantity.millionths()))
            .sum()
    }
}
