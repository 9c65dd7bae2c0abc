//! Opening: a process that died, another task or pod, other rules, a ledger that was lost.

use sha2::{Digest, Sha256};

use super::bucket::Bucket;
use super::{Core, Decision, Fact, Postponement, Status};
use crate::usage::{BucketId, Identity, Moment};

impl Core {
    /// The process has started under `identity`; comes before everything else.
    ///
    /// Attempts that were under way are doubtful. Under another identity than before, open buckets go on, hours that ended
    /// before its time are owed by its first, and submissions that AWS may have counted are parked. Records of customers go on:
    /// AWS does not ask who sends them.
    pub fn open(&mut self, now: Moment, identity: &Identity) -> Decision<()> {
        self.seal_wait_ms = self
            .rules
            .straggler_wait_ms
            .saturating_add(self.jitter_ms(identity));
        self.doubt_unanswered(now);
        if self.state.root.identity.as_ref() != Some(identity) {
            self.take_over(now, identity);
        }
        self.recombine();
        self.decided(())
    }

    /// A damaged ledger was moved aside: hours up to the present one may have records that this one does not know of.
    pub fn distrust_hours(&mut self, now: Moment) -> Decision<()> {
        self.record(Fact::Floored {
            hour: self.rules.period.hour_of(now),
        });
        self.decided(())
    }

    fn doubt_unanswered(&mut self, now: Moment) {
        let interrupted: Vec<_> = self
            .state
            .unsettled
            .iter()
            .filter(|(_, s)| matches!(s.status, Status::InFlight { .. }))
            .map(|(id, _)| *id)
            .collect();
        for bucket in interrupted {
            let postponement = Postponement {
                due: now,
                doubtful: true,
                not_entitled: false,
                alone: false,
                problem: "the process ended during the attempt".to_owned(),
            };
            self.postpone(bucket, postponement);
        }
    }

    fn take_over(&mut self, now: Moment, identity: &Identity) {
        let first = self.state.root.identity.is_none();
        self.record(Fact::IdentityChanged {
            identity: identity.clone(),
            at: now,
        });
        if first {
            return;
        }
        let sealed: Vec<(BucketId, bool, bool)> = self
            .state
            .unsettled
            .iter()
            .filter(|(_, s)| matches!(s.status, Status::Waiting { .. }))
            .filter(|(_, s)| s.request.key.customer.is_none())
            .map(|(id, s)| (*id, s.doubtful, s.not_entitled))
            .collect();
        for (bucket, doubtful, not_entitled) in sealed {
            let problem = format!("the ledger was opened by {identity} before it was delivered");
            if doubtful {
                self.park(now, bucket, problem);
            } else if not_entitled {
                let code = "CustomerNotEntitledException".to_owned();
                self.record(Fact::Rejected {
                    bucket,
                    at: now,
                    code,
                    problem,
                });
            } else {
                self.roll_forward(now, bucket, Some(problem));
            }
        }
        let present = self.rules.period.hour_of(now);
        let lost = |core: &Self, bucket: &Bucket| {
            bucket.key.customer.is_none()
                && (bucket.hour < present || core.is_sealed(&bucket.key, bucket.hour))
        };
        for bucket in self.buckets_where(lost) {
            self.seal(now, bucket, false);
            self.roll_forward(now, bucket, Some(format!("its hour can't be {identity}'s")));
        }
    }

    /// Open buckets follow the rules of today.
    fn recombine(&mut self) {
        let changed: Vec<_> = self
            .state
            .open
            .iter()
            .filter_map(|(id, bucket)| {
                let combine = self.combine_of(&bucket.key.dimension)?;
                (combine != bucket.own.combine()).then_some((*id, combine))
            })
            .collect();
        for (bucket, combine) in changed {
            self.record(Fact::Recombined { bucket, combine });
        }
    }

    /// This identity's part of the fleet's spread: always the same, so that a restart changes nothing.
    fn jitter_ms(&self, identity: &Identity) -> i64 {
        let digest = Sha256::digest(identity.as_str().as_bytes());
        let mut head = [0; 8];
        head.copy_from_slice(&digest[..8]);
        let spread = self
            .rules
            .submit_jitter_ms
            .max(0)
            .cast_unsigned()
            .saturating_add(1);
        (u64::from_be_bytes(head) % spread).cast_signed()
    }
}
