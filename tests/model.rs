//! The metering core against a naive account of what should be billed.
//!
//! A case is a list of [`Op`]s: reports, time, answers, crashes, other pods, a clock that jumps. After each one, for every
//! dimension:
//!
//! - every acknowledged unit is in exactly one place: what the [`Reference`] expects is what is open, sealed, settled, in
//!   doubt or rejected, to the millionth;
//! - a submission's request never changes;
//! - AWS, played by [`Aws`], never gets two different records for one identity, dimension and hour, and holds nothing that
//!   the core has moved elsewhere or rejected;
//! - replaying the journal gives the same state.
//!
//! At the end every fault stops, a person who knows the truth resolves what is in doubt, and then AWS's bill, what is
//! pending and what was rejected is what was acknowledged.
//!
//! A failing case is written to `tests/model.regressions` and run first from then on; `PROPTEST_CASES` sets how many are run.

#![allow(clippy::unwrap_used, reason = "a test stops where its set-up fails")]

#[path = "model/aws.rs"]
mod aws;
#[path = "model/bill.rs"]
mod bill;
#[path = "model/reference.rs"]
mod reference;
#[path = "model/world.rs"]
mod world;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use world::{Op, World};

fn minutes() -> impl Strategy<Value = i64> {
    prop_oneof![3 => 1_i64..20, 3 => 20_i64..70, 1 => 70_i64..500]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..4_usize, 1..2_000_000_u64, prop::option::weighted(0.3, 0..330_i64))
            .prop_map(|(dimension, amount, back)| Op::Report { dimension, amount, minutes_back: back }),
        1 => Just(Op::HugeReport),
        8 => minutes().prop_map(|minutes| Op::Tick { minutes }),
        6 => any::<prop::sample::Index>().prop_map(|which| Op::Recorded { which }),
        3 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(which, counted)| Op::ReplyLost { which, counted }),
        5 => (any::<prop::sample::Index>(), 0..6_u8).prop_map(|(which, error)| Op::ReplyError { which, error }),
        3 => any::<u64>().prop_map(|counted| Op::Restart { counted }),
        2 => any::<u64>().prop_map(|counted| Op::DrainAndRestart { counted }),
        1 => Just(Op::Signal),
        1 => (0..3_u8, any::<u64>()).prop_map(|(identity, counted)| Op::Identity { identity, counted }),
        1 => (-1..=1_i64).prop_map(|hours| Op::ClockJump { hours }),
        2 => any::<prop::sample::Index>().prop_map(|which| Op::Resolve { which }),
        1 => any::<bool>().prop_map(|open| Op::Gate { open }),
        1 => (0..4_usize).prop_map(|dimension| Op::Startup { dimension }),
        1 => (0..4_usize, 0..6_i64).prop_map(|(dimension, hours)| Op::TakenAtAws { dimension, hours }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/model.regressions"))),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_acknowledged_unit_is_in_exactly_one_place(ops in prop::collection::vec(op(), 1..120), seed in any::<u64>()) {
        let mut world = World::new(seed);
        for op in ops {
            world.run(&op);
            world.check();
        }
        world.settle();
    }
}
