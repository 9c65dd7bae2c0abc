//! The metering core with customers against a naive account of what should be billed to each.
//!
//! A case begins the evening before a month closes and is a list of [`Op`]s: calls with several records, time, answers record
//! by record, crashes, other pods, a clock that jumps, customers that come and go. After each one, for every customer and dimension:
//!
//! - every acknowledged unit is in exactly one place: open, sealed, settled, in doubt or rejected, to the millionth;
//! - a call is taken whole or not at all, and refused where a customer is named in two ways within an hour;
//! - a request to AWS has at most 25 records, all of one integration, and no more than eight are under way;
//! - a submission's request never changes, whichever others it shares a request with;
//! - AWS holds nothing that the core has moved elsewhere or rejected;
//! - replaying the journal gives the same state.
//!
//! At the end every fault stops, a person who knows the truth resolves what is in doubt, and then AWS's bill, what is pending
//! and what was rejected is what was acknowledged. `PROPTEST_CASES` sets how many cases are run.

#![allow(clippy::unwrap_used, reason = "a test stops where its set-up fails")]

#[path = "customers_model/aws.rs"]
mod aws;
#[path = "model/bill.rs"]
mod bill;
#[path = "customers_model/reference.rs"]
mod reference;
#[path = "customers_model/world.rs"]
mod world;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::FileFailurePersistence;
use world::{Op, Outcome, Usage, World};

fn usage() -> impl Strategy<Value = Usage> {
    let back = prop_oneof![6 => Just(0_i64), 3 => 0_i64..300, 1 => 0_i64..1500];
    (0..reference::CUSTOMERS, 0..2_usize, 0..2_000_000_u64, back).prop_map(
        |(customer, dimension, amount, minutes_back)| Usage {
            customer,
            dimension,
            amount,
            minutes_back,
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        8 => Just(Outcome::Answered),
        2 => any::<u32>().prop_map(|records| Outcome::Unprocessed { records }),
        3 => any::<bool>().prop_map(|counted| Outcome::Lost { counted }),
        1 => Just(Outcome::Throttled),
        1 => Just(Outcome::NotSent),
        1 => Just(Outcome::Denied),
        1 => Just(Outcome::Refused),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let minutes = prop_oneof![3 => 1_i64..20, 3 => 20_i64..70, 1 => 70_i64..900];
    prop_oneof![
        12 => prop::collection::vec(usage(), 1..25).prop_map(Op::Report),
        8 => minutes.prop_map(Op::Tick),
        12 => (any::<Index>(), outcome()).prop_map(|(which, outcome)| Op::Reply { which, outcome }),
        2 => any::<u64>().prop_map(|counted| Op::Restart { counted }),
        1 => any::<u64>().prop_map(|counted| Op::Drain { counted }),
        1 => (0..3_u8, any::<u64>()).prop_map(|(identity, counted)| Op::Identity { identity, counted }),
        1 => (-1..=1_i64).prop_map(|hours| Op::ClockJump { hours }),
        2 => any::<Index>().prop_map(|which| Op::Resolve { which }),
        1 => (0..reference::CUSTOMERS, any::<bool>())
            .prop_map(|(customer, subscribed)| Op::Subscription { customer, subscribed }),
        1 => (0..reference::CUSTOMERS).prop_map(|customer| Op::Resolved { customer }),
        1 => (0..reference::CUSTOMERS, 0..2_usize, 0..6_i64)
            .prop_map(|(customer, dimension, hours)| Op::TakenAtAws { customer, dimension, hours }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(120),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/customers_model.regressions"))),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_acknowledged_unit_of_a_customer_is_in_exactly_one_place(
        ops in prop::collection::vec(op(), 1..100), seed in any::<u64>(),
    ) {
        let mut world = World::new(seed);
        for op in ops {
            world.run(&op);
            world.check();
        }
        world.settle();
    }
}
