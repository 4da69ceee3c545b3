//! Several addresses of one peer, tried in turn.
//!
//! Used by a member that dials its hub and by who joins one. Invariants: each address
//! gets its whole time, and one that is silent keeps the next waiting for
//! [`NEXT_AFTER`] only; what is not needed any more is dropped, and with it its
//! connection.

use std::{future::Future, time::Duration};

use tokio::task::JoinSet;

use super::NetError;

/// The next address is tried too when one has not answered for so long: twice what a
/// handshake takes on a slow line. So a whole list takes seconds, and the earlier
/// ones, which the hub prefers, are not overtaken on a good day.
const NEXT_AFTER: Duration = Duration::from_secs(2);
/// One attempt, from the look-up of the name to the end of the handshake: a resolver
/// that hangs ends with it.
const ATTEMPT_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
struct Pace {
    next_after: Duration,
    attempt_max: Duration,
}

/// Why no address answered: one error for each, by its place in the list.
pub type Failures = Vec<(usize, NetError)>;

/// Dials the addresses one after the other, side by side where the earlier ones are
/// slow, until one answers well; answers its place in the list too.
///
/// May be dropped at any time.
pub async fn in_turn<T, F>(
    addresses: &[String],
    dial: impl Fn(String) -> F,
) -> Result<(usize, T), Failures>
where
    T: Send + 'static,
    F: Future<Output = Result<T, NetError>> + Send + 'static,
{
    at_pace(addresses, Pace { next_after: NEXT_AFTER, attempt_max: ATTEMPT_MAX }, dial).await
}

async fn at_pace<T, F>(
    addresses: &[String],
    pace: Pace,
    dial: impl Fn(String) -> F,
) -> Result<(usize, T), Failures>
where
    T: Send + 'static,
    F: Future<Output = Result<T, NetError>> + Send + 'static,
{
    let mut waiting = addresses.iter().enumerate().peekable();
    let mut failures = Failures::new();
    // All end with this set.
    let mut attempts = JoinSet::new();
    loop {
        if let Some((place, address)) = waiting.next() {
            let attempt = dial(address.clone());
            attempts.spawn(async move {
                let ended = tokio::time::timeout(pace.attempt_max, attempt).await;
                (place, ended.unwrap_or(Err(NetError::NoAnswer)))
            });
        }
        let ended = tokio::select! {
            ended = attempts.join_next() => ended,
            () = tokio::time::sleep(pace.next_after), if waiting.peek().is_some() => continue,
        };
        match ended {
            Some(Ok((place, Ok(made)))) => return Ok((place, made)),
            Some(Ok((place, Err(error)))) => failures.push((place, error)),
            // A half-dead daemon is worse than a dead one.
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime ends.
            Some(Err(_)) => {}
            None => {
                failures.sort_by_key(|(place, _)| *place);
                return Err(failures);
            }
        }
    }
}

/// The failure that says most: what was said is worth more than that another address
/// is silent, and the first one is the hub's own choice.
pub fn most_telling(failures: Failures) -> Option<(usize, NetError)> {
    let rank = |error: &NetError| match error {
        NetError::Tls(_) | NetError::Refused(_) | NetError::Closed(_) => 0,
        // This node's own fault.
        NetError::Certificate(_) | NetError::Socket { .. } => 0,
        _ => 1,
    };
    failures.into_iter().min_by_key(|(place, error)| (rank(error), *place))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{Semaphore, mpsc};

    use super::*;

    /// What becomes of an address that is dialled.
    #[derive(Clone, Copy)]
    enum Fate {
        Answers,
        Refuses,
        IsSilent,
        /// Once so many others were tried.
        AnswersAfter(u32),
    }
    use Fate::{Answers, AnswersAfter, IsSilent, Refuses};

    /// Dials addresses of these fates; answers which place answered, or who failed, and
    /// which ones were tried, in their order.
    fn dial(fates: &[Fate], pace: Pace) -> (Result<usize, Vec<usize>>, Vec<usize>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let addresses: Vec<String> = (0..fates.len()).map(|place| place.to_string()).collect();
        let (sender, mut tried) = mpsc::unbounded_channel();
        let others = Arc::new(Semaphore::new(0));
        let outcome = runtime.block_on(at_pace(&addresses, pace, |address| {
            let place: usize = address.parse().unwrap();
            sender.send(place).unwrap();
            let (fate, others) = (fates[place], others.clone());
            async move {
                if !matches!(fate, AnswersAfter(_)) {
                    others.add_permits(1);
                }
                match fate {
                    Answers => Ok(()),
                    Refuses => Err(NetError::Closed(None)),
                    IsSilent => std::future::pending().await,
                    AnswersAfter(count) => {
                        others.acquire_many(count).await.unwrap().forget();
                        Ok(())
                    }
                }
            }
        }));
        let failed = |failures: Failures| failures.iter().map(|(place, _)| *place).collect();
        let outcome = outcome.map(|(place, ())| place).map_err(failed);
        drop(sender);
        (outcome, std::iter::from_fn(|| tried.blocking_recv()).collect())
    }

    #[test]
    fn the_first_that_answers_counts_and_the_silent_keep_nobody_waiting() {
        let soon = Duration::from_millis(1);
        let never = Duration::from_secs(3600);
        let quick = Pace { next_after: soon, attempt_max: never };
        // Outcome, and who was tried.
        for (fates, outcome, tried) in [
            (&[Refuses, Answers][..], Ok(1), &[0, 1][..]),
            (&[IsSilent, Answers], Ok(1), &[0, 1]),
            (&[IsSilent, IsSilent, Refuses, Answers, Answers], Ok(3), &[0, 1, 2, 3]),
            // It goes on while others are tried.
            (&[AnswersAfter(2), IsSilent, Refuses], Ok(0), &[0, 1, 2]),
            (&[Refuses, Refuses], Err(vec![0, 1]), &[0, 1]),
            (&[], Err(vec![]), &[]),
        ] {
            assert_eq!(dial(fates, quick), (outcome, tried.to_vec()));
        }
        // Nobody else is tried while the first may answer yet, nor once it has.
        let patient = Pace { next_after: never, attempt_max: never };
        assert_eq!(dial(&[Answers, Answers], patient), (Ok(0), vec![0]));
        assert_eq!(dial(&[Refuses, Answers], patient), (Ok(1), vec![0, 1]));
        // Silence ends.
        let brief = Pace { next_after: soon, attempt_max: soon };
        assert_eq!(dial(&[IsSilent, Refuses], brief), (Err(vec![0, 1]), vec![0, 1]));
    }

    #[test]
    fn an_answer_says_more_than_silence_and_the_first_more_than_the_next() {
        let silent = || NetError::NoAnswer;
        let closed = || NetError::Closed(None);
        for (errors, expected) in [
            (vec![silent(), silent()], 0),
            (vec![silent(), closed(), closed()], 1),
            (vec![closed(), silent()], 0),
        ] {
            let failures = errors.into_iter().enumerate().collect();
            assert_eq!(most_telling(failures).unwrap().0, expected);
        }
        assert!(most_telling(vec![]).is_none());
    }
}
