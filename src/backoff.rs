//! Full-jitter exponential backoff, as AWS advises for retries: each pause is uniform between zero and a
//! ceiling that doubles with every failure up to a bound.

use std::time::Duration;

/// The ceiling of the first pause and the bound that no pause exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Ceiling of the pause after the first failure.
    pub first: Duration,
    /// No pause is longer than this.
    pub longest: Duration,
}

impl Backoff {
    /// The highest pause allowed after `failures` failures (1 for the first).
    pub fn ceiling(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// A pause after `failures` failures, uniform between zero and [`Backoff::ceiling`].
    pub fn pause(&self, failures: u32, random: &mut fastrand::Rng) -> Duration {
        self.ceiling(failures).mul_f64(random.f64())
    }
}

/// `pause` lengthened or shortened by up to a fifth, so that a fleet does not ask in step.
pub fn jittered(pause: Duration, random: &mut fastrand::Rng) -> Duration {
    pause.mul_f64(0.8 + 0.4 * random.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_millis(500),
        longest: Duration::from_mins(1),
    };

    #[test]
    fn the_ceiling_doubles_up_to_the_bound() {
        let ceilings: Vec<_> = [1, 2, 3, 8, 9, u32::MAX]
            .map(|failures| BACKOFF.ceiling(failures).as_millis())
            .to_vec();
        assert_eq!(ceilings, [500, 1000, 2000, 60_000, 60_000, 60_000]);
    }

    #[test]
    fn a_pause_is_spread_over_the_whole_range() {
        let mut random = fastrand::Rng::with_seed(7);
        let pauses: Vec<_> = (0..1000).map(|_| BACKOFF.pause(3, &mut random)).collect();
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(2)));
        assert!(
            pauses
                .iter()
                .any(|pause| *pause < Duration::from_millis(100))
        );
        assert!(
            pauses
                .iter()
                .any(|pause| *pause > Duration::from_millis(1900))
        );
    }
}
