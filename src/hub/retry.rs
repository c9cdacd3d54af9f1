//! Retries: how many, how long to wait, and after which failures.

use crate::error::{Error, HubError};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Limits for retries and timeouts.
#[derive(Debug, Clone, Copy)]
pub struct RetryLimits {
    /// Attempts in all; a download that makes progress is given as many again.
    pub attempts: u32,
    /// The wait after the first failure; it doubles after each.
    pub first_wait: Duration,
    /// The longest wait. A server that asks for a longer one is not waited for.
    pub longest_wait: Duration,
    /// How long the answer to a lookup may take.
    pub etag_timeout: Duration,
    /// How long a download may stall.
    pub download_timeout: Duration,
}

/// Whether a failed attempt is worth another one.
#[derive(Debug)]
pub(super) enum Retry {
    /// It would fail as well.
    Never,
    /// It may help once: what arrived was damaged.
    Once,
    /// It may help, after the time that the server asked for.
    Wait(Option<Duration>),
    /// It continues where this one stopped.
    Continue,
}

/// A failed attempt.
#[derive(Debug)]
pub(super) struct FailedAttempt {
    /// Reported when there is no further attempt.
    pub error: Error,
    /// Whether to try again.
    pub again: Retry,
}

impl FailedAttempt {
    /// A failure of the network.
    pub(super) fn network(url: &str, reason: impl Into<String>, again: Retry) -> Self {
        let error = HubError::Unreachable { url: url.into(), reason: reason.into(), attempts: 1 };
        Self { error: error.into(), again }
    }
}

impl<E: Into<Error>> From<E> for FailedAttempt {
    fn from(error: E) -> Self {
        Self { error: error.into(), again: Retry::Never }
    }
}

/// Repeats `attempt` until it succeeds or another one is pointless.
///
/// # Errors
/// The failure of the last attempt.
pub(super) fn retry<T>(
    limits: &RetryLimits,
    mut attempt: impl FnMut() -> Result<T, FailedAttempt>,
) -> Result<T, Error> {
    let (mut failed, mut total, mut was_damaged) = (0, 0, false);
    loop {
        let failure = match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        total += 1;
        failed = if matches!(failure.again, Retry::Continue) { 1 } else { failed + 1 };
        let wait = match failure.again {
            Retry::Never => None,
            Retry::Once if was_damaged => None,
            Retry::Once | Retry::Continue | Retry::Wait(None) => Some(backoff(limits, failed)),
            Retry::Wait(Some(asked)) => (asked <= limits.longest_wait).then_some(asked),
        };
        was_damaged |= matches!(failure.again, Retry::Once);
        match wait {
            Some(wait) if failed < limits.attempts => std::thread::sleep(wait),
            _ => return Err(counted(failure.error, total)),
        }
    }
}

/// The wait after `failed` failures in a row: doubling, and shortened by up to a half at random, so that many clients
/// do not come back at the same moment.
fn backoff(limits: &RetryLimits, failed: u32) -> Duration {
    let full = limits.first_wait.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(limits.longest_wait);
    // Processes must differ here, so this is not a draw from the reproducible streams of `rng`.
    let random = RandomState::new().hash_one(failed) as f64 / u64::MAX as f64;
    full.mul_f64(0.5 + random / 2.0)
}

fn counted(error: Error, total: u32) -> Error {
    match error {
        Error::Hub(HubError::Unreachable { url, reason, .. }) => {
            HubError::Unreachable { url, reason, attempts: total }.into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn limits(attempts: u32) -> RetryLimits {
        let ms = Duration::from_millis;
        RetryLimits { attempts, first_wait: ms(1), longest_wait: ms(40), etag_timeout: ms(1), download_timeout: ms(1) }
    }

    /// Fails in the given ways, then succeeds; gives the result and the number of attempts.
    fn run(attempts: u32, failures: Vec<Retry>) -> (Result<(), Error>, u32) {
        let (mut failures, mut count) = (failures.into_iter(), 0);
        let result = retry(&limits(attempts), || {
            count += 1;
            failures.next().map_or(Ok(()), |again| Err(FailedAttempt::network("u", "r", again)))
        });
        (result, count)
    }

    #[test]
    fn attempts_are_bounded_and_counted() {
        let wait = |n| (0..n).map(|_| Retry::Wait(None)).collect();
        assert!(matches!(run(3, wait(2)), (Ok(()), 3)));
        let (result, count) = run(3, wait(9));
        assert_eq!(count, 3);
        assert!(result.unwrap_err().to_string().ends_with("(tried 3 times)"));
        assert_eq!(run(3, vec![Retry::Never]).1, 1);
        assert_eq!(run(9, vec![Retry::Once, Retry::Wait(None), Retry::Once]).1, 3);
        assert!(matches!(run(2, (0..9).map(|_| Retry::Continue).collect()), (Ok(()), 10)));
    }

    #[test]
    fn the_servers_wish_is_honoured_within_bounds() {
        let start = Instant::now();
        assert!(run(2, vec![Retry::Wait(Some(Duration::from_millis(30)))]).0.is_ok());
        assert!(start.elapsed() >= Duration::from_millis(30));
        let (result, count) = run(9, vec![Retry::Wait(Some(Duration::from_hours(1)))]);
        assert!(result.is_err() && count == 1);
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        for (failed, full) in [(1, 1), (2, 2), (5, 16), (7, 40), (99, 40)] {
            let wait = backoff(&limits(9), failed);
            let full = Duration::from_millis(full);
            assert!(wait <= full && wait >= full / 2, "{failed}: {wait:?}");
        }
    }
}
