//! Properties of the registration state machine, in virtual time: an uptime that jumps from step to step.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use proptest::prelude::*;
use tollgate::backoff::Backoff;
use tollgate::config::{OnDenied, OnUnavailable};
use tollgate::entitlement::status::StateName;
use tollgate::entitlement::{Gate, Policy, Step, Verdict};
use tollgate::exit::Exit;

const STEPS_MAX: usize = 400;

/// What happened in one run of a gate against a script of answers.
#[derive(Debug, Default)]
struct Run {
    asked_at: Vec<Duration>,
    /// Uptime, state and the number of grants AWS had given by then.
    states: Vec<(Duration, StateName, usize)>,
    /// Pauses between an undecided answer while pending and the next question, with the number of failures before.
    pauses: Vec<(u32, Duration)>,
    ended: Option<(Duration, Exit)>,
}

/// One answer of AWS: how long it takes, and what it says.
#[derive(Clone, Debug)]
struct Answer {
    after: Duration,
    verdict: Verdict,
}

fn policy(deadline: Duration, on_denied: OnDenied, on_unavailable: OnUnavailable) -> Policy {
    Policy {
        deadline,
        backoff: Backoff {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(30),
        },
        on_denied,
        on_unavailable,
        hold: Duration::from_mins(5),
    }
}

/// Plays `answers` to a gate, as the registrar does: an answer that would come after the state has ended does not come.
fn play(policy: Policy, seed: u64, answers: &[Answer]) -> Run {
    let mut gate = Gate::new(policy, fastrand::Rng::with_seed(seed));
    let mut run = Run::default();
    let mut uptime = Duration::ZERO;
    let (mut grants, mut failures) = (0, 0);
    let mut failed_at = None;
    let mut answers = answers.iter();
    for _ in 0..STEPS_MAX {
        let step = gate.next(uptime);
        run.states.push((uptime, gate.state(), grants));
        match step {
            Step::WaitUntil(at) => {
                assert!(at > uptime, "waiting makes time pass");
                uptime = at;
            }
            Step::Rest => return run,
            Step::End(exit) => {
                run.ended = Some((uptime, exit));
                return run;
            }
            Step::Ask { give_up_at } => {
                run.asked_at.push(uptime);
                if let Some(failed_at) = failed_at.take() {
                    run.pauses
                        .push((failures, uptime.saturating_sub(failed_at)));
                }
                let Some(answer) = answers.next() else {
                    return run;
                };
                let answered_at = uptime + answer.after;
                let in_time = give_up_at.is_none_or(|end| answered_at < end);
                let verdict = if in_time {
                    answer.verdict
                } else {
                    Verdict::Undecided
                };
                uptime = if in_time {
                    answered_at
                } else {
                    give_up_at.unwrap()
                };
                grants += usize::from(verdict == Verdict::Granted);
                if verdict == Verdict::Undecided && gate.state() == StateName::Pending {
                    failures += 1;
                    failed_at = Some(uptime);
                }
                gate.answer(uptime, verdict);
            }
        }
    }
    run
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        1 => Just(Verdict::Granted),
        1 => Just(Verdict::Refused),
        8 => Just(Verdict::Undecided),
    ]
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    let answer = (0..20_000_u64, verdicts()).prop_map(|(millis, verdict)| Answer {
        after: Duration::from_millis(millis),
        verdict,
    });
    prop::collection::vec(answer, 0..200)
}

fn policies() -> impl Strategy<Value = Policy> {
    let on_denied = prop_oneof![Just(OnDenied::Exit), Just(OnDenied::Hold)];
    let on_unavailable = prop_oneof![
        Just(OnUnavailable::Exit),
        (1..7200_u64).prop_map(|seconds| OnUnavailable::Grace(Duration::from_secs(seconds))),
    ];
    (1..3600_u64, on_denied, on_unavailable).prop_map(|(seconds, on_denied, on_unavailable)| {
        policy(Duration::from_secs(seconds), on_denied, on_unavailable)
    })
}

proptest! {
    #[test]
    fn never_entitled_without_a_verified_grant(policy in policies(), seed: u64, answers in answers()) {
        let run = play(policy, seed, &answers);
        for (at, state, grants) in run.states {
            prop_assert_eq!(state == StateName::Entitled, grants > 0, "at {:?}: {:?}", at, state);
        }
    }

    #[test]
    fn never_pending_past_the_deadline_and_grace_has_an_end(policy in policies(), seed: u64, answers in answers()) {
        let grace_ends = match policy.on_unavailable {
            OnUnavailable::Exit => policy.deadline,
            OnUnavailable::Grace(length) => policy.deadline + length,
        };
        for (at, state, _) in play(policy, seed, &answers).states {
            match state {
                StateName::Pending => prop_assert!(at < policy.deadline),
                StateName::Grace => prop_assert!(at >= policy.deadline && at < grace_ends),
                StateName::Unavailable => prop_assert!(at >= grace_ends),
                StateName::Entitled | StateName::Denied => {}
            }
        }
    }

    #[test]
    fn a_refusal_ends_the_process_or_is_questioned_only_after_the_hold(
        policy in policies(), seed: u64, answers in answers(),
    ) {
        let run = play(policy, seed, &answers);
        let denied: Vec<_> = run.states.iter().filter(|(_, state, _)| *state == StateName::Denied).collect();
        if let (Some((since, ..)), OnDenied::Hold) = (denied.first(), policy.on_denied) {
            let soonest = *since + policy.hold.mul_f64(0.8);
            prop_assert!(run.asked_at.iter().all(|at| at < since || *at >= soonest));
        }
        if let Some((_, exit)) = run.ended {
            let expected = if denied.is_empty() { Exit::Unavailable } else { Exit::Denied };
            prop_assert_eq!(exit, expected);
            prop_assert!(denied.is_empty() || policy.on_denied == OnDenied::Exit);
        }
    }

    #[test]
    fn backoff_stays_within_its_bounds(policy in policies(), seed: u64, answers in answers()) {
        for (failures, pause) in play(policy, seed, &answers).pauses {
            prop_assert!(pause <= policy.backoff.ceiling(failures), "{:?} after {} failures", pause, failures);
        }
    }
}

#[test]
fn the_first_question_comes_at_once() {
    let policy = policy(Duration::from_mins(30), OnDenied::Exit, OnUnavailable::Exit);
    assert_eq!(play(policy, 1, &[]).asked_at, [Duration::ZERO]);
}

#[test]
fn an_outage_is_questioned_up_to_the_deadline_and_then_unavailable() {
    let policy = policy(Duration::from_mins(30), OnDenied::Exit, OnUnavailable::Exit);
    let outage = vec![
        Answer {
            after: Duration::from_millis(5),
            verdict: Verdict::Undecided
        };
        STEPS_MAX
    ];
    let run = play(policy, 1, &outage);
    assert_eq!(
        run.ended,
        Some((Duration::from_mins(30), Exit::Unavailable))
    );
    assert!(
        run.asked_at.len() > 60,
        "a pause is 15 s in the mean: {}",
        run.asked_at.len()
    );
}

#[test]
fn grace_ends_with_the_grant_when_aws_comes_back() {
    let policy = policy(
        Duration::from_secs(10),
        OnDenied::Exit,
        OnUnavailable::Grace(Duration::from_hours(1)),
    );
    let mut answers = vec![
        Answer {
            after: Duration::from_secs(5),
            verdict: Verdict::Undecided
        };
        20
    ];
    answers.push(Answer {
        after: Duration::ZERO,
        verdict: Verdict::Granted,
    });
    let run = play(policy, 3, &answers);
    let states: Vec<_> = run.states.iter().map(|(_, state, _)| *state).collect();
    assert!(states.contains(&StateName::Grace));
    assert_eq!(states.last(), Some(&StateName::Entitled));
}

#[test]
fn new_keys_make_a_held_refusal_ask_at_once() {
    let policy = policy(Duration::from_mins(30), OnDenied::Hold, OnUnavailable::Exit);
    let mut gate = Gate::new(policy, fastrand::Rng::with_seed(1));
    gate.answer(Duration::ZERO, Verdict::Refused);
    let soon = Duration::from_secs(1);
    assert!(matches!(gate.next(soon), Step::WaitUntil(_)));
    gate.ask_now(soon);
    assert_eq!(gate.next(soon), Step::Ask { give_up_at: None });
}
