//! What the facts about open buckets change, up to their sealing.

use super::customers::CUSTOMER_HOURS_KEPT;
use super::{Illegal, State};
use crate::meter::bucket::{Bucket, Own, Sample, Sealed};
use crate::meter::series::SeriesKey;
use crate::meter::submission::Submission;
use crate::meter::tally::Tally;
use crate::meter::{Amount, Combine};
use crate::usage::{BucketId, Hour, Moment, Period, Quantity};

impl State {
    pub(super) fn insert(&mut self, id: BucketId, mut bucket: Bucket) -> Result<(), Illegal> {
        self.share_name(&mut bucket.key);
        let series = self.series.entry(bucket.key.clone()).or_default();
        let free = series.open(bucket.hour, id);
        self.touched.series.insert(bucket.key.clone());
        if !free || id.0 != self.root.next_bucket {
            return Err(Illegal {
                bucket: id,
                found: "a second bucket of its hour or out of order",
                fact: "opening",
            });
        }
        self.root.next_bucket += 1;
        self.touched.buckets.insert(id);
        self.open.insert(id, Box::new(bucket));
        Ok(())
    }

    /// Puts the name that is here already in the place of an equal one.
    pub(super) fn share_name(&mut self, key: &mut SeriesKey) {
        match self.dimensions.get(&key.dimension) {
            Some(known) => key.dimension = known.clone(),
            None => {
                self.dimensions.insert(key.dimension.clone());
            }
        }
    }

    pub(super) fn report(
        &mut self,
        id: BucketId,
        at: Moment,
        amount: &Amount,
        newest: bool,
        late: Option<Hour>,
    ) -> Result<(), Illegal> {
        let Some(bucket) = self.open.get_mut(&id) else {
            return Err(self.illegal(id, "a report"));
        };
        if !self.touched.buckets.contains(&id) {
            self.touched.buckets.insert(id);
        }
        let combine = bucket.own.combine();
        let hour = late.unwrap_or(bucket.hour);
        if let Some(hour) = late {
            if combine == Combine::Sum {
                bucket.owe(amount.tally());
                return Ok(());
            }
            let series = self.series.entry(bucket.key.clone()).or_default();
            self.touched.series.insert(bucket.key.clone());
            let (_, sealed) = series
                .compared_mut()
                .entry(hour)
                .or_insert_with(|| (id, Sealed::default()));
            let excess = sealed.excess(combine, amount);
            sealed.join(combine, amount);
            if combine == Combine::Last {
                if newest || sealed.at.is_none_or(|sampled| at >= sampled) {
                    sealed.at = Some(at);
                    let excess = u64::try_from(excess.total()).ok();
                    let excess = excess.and_then(|sum| Quantity::from_millionths(sum).ok());
                    let excess = excess.expect("one report's quantity fits one record");
                    bucket.owe_late(hour, excess);
                }
            } else {
                bucket.owe(excess);
            }
        } else {
            bucket.first_at = bucket.first_at.min(at);
            if !bucket.own.join(amount, at, newest) {
                return Err(self.illegal(id, "a report of another kind"));
            }
        }
        if combine == Combine::Last && newest {
            let key = bucket.key.clone();
            self.level(key, hour, at, amount);
        }
        Ok(())
    }

    /// A new level replaces the one that later hours hold.
    fn level(&mut self, key: SeriesKey, hour: Hour, at: Moment, amount: &Amount) {
        let Amount::Quantity { quantity, .. } = amount else {
            return;
        };
        let sample = Sample {
            at,
            quantity: *quantity,
            tally: amount.tally(),
        };
        let series = self.series.entry(key.clone()).or_default();
        for (_, id) in &series.open {
            let id = *id;
            let Some(bucket) = self.open.get_mut(&id) else {
                continue;
            };
            if let (
                true,
                Own::Last {
                    sample: held_sample,
                    held: true,
                },
            ) = (bucket.hour > hour, &mut bucket.own)
            {
                *held_sample = Some(Box::new(Sample {
                    at: bucket.hour.start(),
                    ..sample.clone()
                }));
                self.touched.buckets.insert(id);
            }
        }
        series.level = Some(Box::new(sample));
        self.touched.series.insert(key);
    }

    pub(super) fn hold(&mut self, id: BucketId) -> Result<(), Illegal> {
        let key = self.bucket_mut(id, "holding a level")?.key.clone();
        let level = self
            .series
            .get(&key)
            .and_then(|series| series.level.clone());
        let bucket = self.bucket_mut(id, "holding a level")?;
        if let (Own::Last { sample, held }, Some(level)) = (&mut bucket.own, level) {
            *sample = Some(Box::new(Sample {
                at: bucket.hour.start(),
                ..*level
            }));
            *held = true;
        }
        Ok(())
    }

    pub(super) fn recombine(&mut self, id: BucketId, combine: Combine) -> Result<(), Illegal> {
        let bucket = self.bucket_mut(id, "a new combination")?;
        bucket.owe(bucket.own.tally());
        bucket.own = Own::empty(combine);
        Ok(())
    }

    pub(super) fn seal(
        &mut self,
        sealed: &Submission,
        spill: Option<&(BucketId, Tally)>,
        takes_hour: bool,
        period: Period,
    ) -> Result<(), Illegal> {
        let id = sealed.request.bucket;
        let Some(bucket) = self.open.remove(&id).map(|bucket| *bucket) else {
            return Err(self.illegal(id, "sealing"));
        };
        let series = self.series.entry(bucket.key.clone()).or_default();
        series.open.retain(|(_, open)| *open != id);
        for (hour, excess) in bucket.late() {
            if let Some((_, sealed)) = series.compared_mut().get_mut(&hour) {
                sealed.value = sealed.value.checked_add(excess).unwrap_or(Quantity::MAX);
            }
        }
        if takes_hour {
            series.sealed.insert(bucket.hour, period);
            if bucket.own.combine() != Combine::Sum {
                let record = || (id, bucket.own.into_sealed());
                series
                    .compared_mut()
                    .entry(bucket.hour)
                    .or_insert_with(record);
            }
            let kept = if bucket.key.customer.is_some() {
                CUSTOMER_HOURS_KEPT
            } else {
                POD_HOURS_KEPT
            };
            series.forget(period.back(sealed.hour, kept), period);
        }
        self.touched.series.insert(bucket.key);
        self.touched.buckets.insert(id);
        self.unsettled.insert(id, sealed.clone());
        if let Some((into, rest)) = spill {
            self.bucket_mut(*into, "a spill")?.owe(rest.clone());
        }
        Ok(())
    }

    pub(super) fn bucket_mut(
        &mut self,
        id: BucketId,
        fact: &'static str,
    ) -> Result<&mut Bucket, Illegal> {
        if !self.open.contains_key(&id) {
            return Err(self.illegal(id, fact));
        }
        self.touched.buckets.insert(id);
        Ok(self.open.get_mut(&id).expect("looked up above"))
    }
}

/// As [`CUSTOMER_HOURS_KEPT`], for usage of this pod.
const POD_HOURS_KEPT: i64 = 8;
