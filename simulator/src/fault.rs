//! What goes wrong on purpose: by operation, so many times, at a rate, or for a time.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::token::Attack;

/// A fault as it is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The operation it strikes; none for all.
    #[serde(default)]
    pub operation: Option<String>,
    /// What happens.
    pub kind: Kind,
    /// For `error`: the exception's name.
    #[serde(default)]
    pub error: Option<String>,
    /// For `delay`: how long, in milliseconds.
    #[serde(default)]
    pub delay_ms: Option<u64>,
    /// For the kinds that strike records: the record at this place of a batch alone, counted from 0; none for any.
    #[serde(default)]
    pub record: Option<usize>,
    /// For `attack`: which.
    #[serde(default)]
    pub attack: Option<Attack>,
    /// It strikes so many calls (or records) and is gone; none for ever.
    #[serde(default)]
    pub count: Option<u64>,
    /// It strikes each call (or record) with this probability; none for each.
    #[serde(default)]
    pub rate: Option<f64>,
    /// It is gone after so many milliseconds.
    #[serde(default)]
    pub for_ms: Option<u64>,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A modelled error, nothing counted.
    Error,
    /// HTTP 500 with InternalServiceErrorException, nothing counted.
    InternalError,
    /// HTTP 500 with InternalServiceErrorException after the call was carried out.
    InternalErrorAfter,
    /// HTTP 503 with a page of HTML, as a load balancer answers.
    UnavailablePage,
    /// HTTP 200 with a page of HTML, as a captive proxy answers.
    HtmlPage,
    /// HTTP 200 with a body that is not JSON.
    Garbage,
    /// The answer breaks off in the middle, after the call was carried out.
    Truncated,
    /// The connection closes before the call was carried out.
    ConnectionReset,
    /// The connection closes after the call was carried out.
    ReplyLost,
    /// The answer takes its time.
    Delay,
    /// A signature that must not be believed.
    Attack,
    /// BatchMeterUsage leaves a record unprocessed, nothing of it counted.
    Unprocessed,
    /// BatchMeterUsage answers a record with CustomerNotSubscribed, nothing of it counted.
    CustomerNotSubscribed,
    /// BatchMeterUsage answers a record with DuplicateRecord, nothing of it counted.
    DuplicateRecord,
}

/// A fault in force.
#[derive(Debug)]
struct Armed {
    fault: Fault,
    left: Option<u64>,
    until: Option<Instant>,
}

/// All faults in force, and the randomness of those that strike at a rate.
#[derive(Debug)]
pub struct Faults {
    armed: Vec<Armed>,
    random: u64,
}

/// A fault that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FaultError(pub &'static str);

impl Faults {
    /// None yet.
    pub fn new(seed: u64) -> Self {
        // xorshift stands still at zero.
        Self {
            armed: Vec::new(),
            random: seed | 1 << 63,
        }
    }

    /// Puts a fault in force.
    pub fn add(&mut self, fault: Fault) -> Result<(), FaultError> {
        check(&fault)?;
        let until = fault
            .for_ms
            .map(|ms| Instant::now() + Duration::from_millis(ms));
        self.armed.push(Armed {
            left: fault.count,
            until,
            fault,
        });
        Ok(())
    }

    /// Takes all faults back.
    pub fn clear(&mut self) {
        self.armed.clear();
    }

    /// The faults still in force.
    pub fn list(&mut self) -> Vec<Fault> {
        self.retire();
        self.armed
            .iter()
            .map(|armed| Fault {
                count: armed.left,
                ..armed.fault.clone()
            })
            .collect()
    }

    /// The faults that strike a call of `operation` now: at most one of each kind.
    pub fn strike(&mut self, operation: &str) -> Vec<Fault> {
        self.retire();
        let mut struck: Vec<Fault> = Vec::new();
        for index in 0..self.armed.len() {
            let fault = self.armed[index].fault.clone();
            let meant = fault
                .operation
                .as_deref()
                .is_none_or(|name| name == operation);
            if !meant
                || fault.kind.strikes_records()
                || struck.iter().any(|other| other.kind == fault.kind)
            {
                continue;
            }
            if !self.hits(index) {
                continue;
            }
            struck.push(fault);
        }
        struck
    }

    /// What strikes the record at `place` of a batch, counted from 0.
    pub(crate) fn strike_record(&mut self, place: usize) -> Option<Kind> {
        self.retire();
        for index in 0..self.armed.len() {
            let fault = &self.armed[index].fault;
            let meant = fault.record.is_none_or(|record| record == place);
            let kind = fault.kind;
            if kind.strikes_records() && meant && self.hits(index) {
                return Some(kind);
            }
        }
        None
    }

    /// Whether a fault's rate lets it strike now; counts it if so.
    fn hits(&mut self, index: usize) -> bool {
        let rate = self.armed[index].fault.rate;
        if rate.is_some_and(|rate| self.draw() >= rate) {
            return false;
        }
        if let Some(left) = &mut self.armed[index].left {
            *left -= 1;
        }
        true
    }

    fn retire(&mut self) {
        let now = Instant::now();
        self.armed
            .retain(|armed| armed.left != Some(0) && armed.until.is_none_or(|until| now < until));
    }

    /// Uniform from 0 to 1 (xorshift64).
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in f64")]
    fn draw(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Fault {
    /// A fault that strikes every call, or record, for ever.
    pub fn new(kind: Kind) -> Self {
        Self {
            operation: None,
            kind,
            error: None,
            delay_ms: None,
            attack: None,
            record: None,
            count: None,
            rate: None,
            for_ms: None,
        }
    }
}

impl Kind {
    /// Whether it strikes records of a batch, not calls.
    fn strikes_records(self) -> bool {
        matches!(
            self,
            Self::Unprocessed | Self::CustomerNotSubscribed | Self::DuplicateRecord
        )
    }
}

fn check(fault: &Fault) -> Result<(), FaultError> {
    let fits = |needed: bool, given: bool, problem| {
        if needed == given {
            Ok(())
        } else {
            Err(FaultError(problem))
        }
    };
    fits(
        fault.kind == Kind::Error,
        fault.error.is_some(),
        "`error` belongs to kind error, which needs it",
    )?;
    fits(
        fault.kind == Kind::Delay,
        fault.delay_ms.is_some(),
        "`delay_ms` belongs to kind delay, which needs it",
    )?;
    fits(
        fault.kind == Kind::Attack,
        fault.attack.is_some(),
        "`attack` belongs to kind attack, which needs it",
    )?;
    let records = fault.kind.strikes_records();
    if fault.record.is_some() && !records {
        return Err(FaultError(
            "`record` belongs to the kinds that strike records",
        ));
    }
    let operation = fault.operation.as_deref();
    if records && operation.is_some_and(|name| name != "BatchMeterUsage") {
        return Err(FaultError("only BatchMeterUsage has records to strike"));
    }
    match fault.rate {
        Some(rate) if !(0.0..=1.0).contains(&rate) => {
            Err(FaultError("`rate` is a probability, 0 to 1"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle() -> Fault {
        Fault {
            operation: Some("MeterUsage".to_owned()),
            error: Some("ThrottlingException".to_owned()),
            ..Fault::new(Kind::Error)
        }
    }

    #[test]
    fn a_counted_fault_strikes_its_operation_that_often() {
        let mut faults = Faults::new(1);
        faults
            .add(Fault {
                count: Some(2),
                ..throttle()
            })
            .unwrap();
        assert!(faults.strike("RegisterUsage").is_empty());
        let struck: Vec<_> = (0..4).map(|_| faults.strike("MeterUsage").len()).collect();
        assert_eq!(struck, [1, 1, 0, 0]);
        assert!(faults.list().is_empty());
    }

    #[test]
    fn a_rate_is_kept_and_the_same_seed_strikes_the_same_calls() {
        let strikes = |seed| {
            let mut faults = Faults::new(seed);
            faults
                .add(Fault {
                    rate: Some(0.25),
                    ..throttle()
                })
                .unwrap();
            (0..4000)
                .map(|_| faults.strike("MeterUsage").len())
                .collect::<Vec<_>>()
        };
        assert_eq!(strikes(7), strikes(7));
        let struck: usize = strikes(7).iter().sum();
        assert!((900..1100).contains(&struck), "{struck}");
    }

    #[test]
    fn a_fault_without_what_it_needs_is_refused() {
        let mut faults = Faults::new(1);
        assert!(
            faults
                .add(Fault {
                    error: None,
                    ..throttle()
                })
                .is_err()
        );
        assert!(
            faults
                .add(Fault {
                    kind: Kind::Delay,
                    ..throttle()
                })
                .is_err()
        );
        assert!(
            faults
                .add(Fault {
                    rate: Some(1.5),
                    ..throttle()
                })
                .is_err()
        );
    }
}
