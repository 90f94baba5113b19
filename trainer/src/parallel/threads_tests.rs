//! Ranks as threads: messages find their rank, and a rank that fails, panics or hangs ends the others.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::threads::{Failure, First, GRACE, run};
use super::{Call, Collective, ParallelError};

const CALL: Call = Call { op: "test", step: 7, patience: Duration::from_mins(1) };

fn run_all<T: Send>(
    size: usize,
    body: impl Fn(&dyn Collective) -> Result<T, ParallelError> + Sync,
) -> Result<T, First<ParallelError>> {
    run(size, body, |_| false, |first| panic!("rank {} does not come back", first.rank))
}

#[test]
fn messages_reach_their_rank() {
    let seen = run_all(4, |ranks| {
        let mut seen = Vec::new();
        for round in 0..50u8 {
            let outgoing: Vec<Vec<u8>> = (0..4).map(|to| vec![round, ranks.rank() as u8, to]).collect();
            let outgoing: Vec<&[u8]> = outgoing.iter().map(Vec::as_slice).collect();
            seen.push(ranks.exchange(CALL, &outgoing)?);
        }
        Ok(seen)
    });
    let of_round = |round: u8| (0..4).map(|from| vec![round, from, 0]).collect();
    let expected: Vec<Vec<Vec<u8>>> = (0..50).map(of_round).collect();
    assert_eq!(seen.expect("no rank failed"), expected);
}

/// Groups exchange at their own pace, between calls of all, and what is wrong names ranks of the whole.
#[test]
fn messages_stay_within_a_group() {
    let seen = run_all(4, |ranks| {
        let group = if ranks.rank() % 2 == 0 { [0, 2] } else { [1, 3] };
        let mut seen = Vec::new();
        for round in 0..20u8 {
            let own = [round, ranks.rank() as u8];
            for _ in 0..ranks.rank() % 2 {
                ranks.all_gather_among(CALL, &group, &own)?;
            }
            seen.push(ranks.all_gather_among(CALL, &group, &own)?);
            seen.push(ranks.all_gather(CALL, &own)?);
        }
        Ok(seen)
    });
    let of = |round: u8, ranks: &[u8]| ranks.iter().map(|&rank| vec![round, rank]).collect();
    let expected: Vec<Vec<Vec<u8>>> =
        (0..20).flat_map(|round| [of(round, &[0, 2]), of(round, &[0, 1, 2, 3])]).collect();
    assert_eq!(seen.expect("no rank failed"), expected);
    let first = run_all(4, |ranks| match ranks.rank() {
        3 => Ok(()),
        rank => {
            let call = Call { patience: Duration::from_millis(50), ..CALL };
            ranks.all_gather_among(call, &[rank % 2, rank % 2 + 2], &[]).map(|_| ())
        }
    });
    let Failure::Error(error) = first.expect_err("rank 3 did not come").failure else { panic!("an error") };
    assert_eq!(error.to_string(), "rank 3 was lost at `test` of step 7: it did not come within 0.05 s");
}

#[test]
fn threads_are_shared_out() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(5).build().expect("threads");
    let counts =
        pool.install(|| run_all(3, |ranks| ranks.all_gather(CALL, &[rayon::current_num_threads() as u8])));
    let mut counts = counts.expect("no rank failed").concat();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 2]);
}

#[test]
fn a_rank_that_fails_ends_the_others() {
    let started = Instant::now();
    let first = run_all(3, |ranks| match ranks.rank() {
        1 => Err(ParallelError::Diverged { rank: 1, step: 6 }),
        _ => ranks.all_gather(CALL, &[]),
    });
    let first = first.expect_err("rank 1 failed");
    assert!(matches!(first.failure, Failure::Error(ParallelError::Diverged { .. })), "{first:?}");
    assert_eq!((first.rank, first.op, first.step), (1, "start", 0));
    assert!(started.elapsed() < GRACE);
}

#[test]
fn a_rank_that_panics_ends_the_others() {
    let first = run_all(2, |ranks| {
        ranks.all_gather(CALL, &[])?;
        assert!(ranks.rank() == 0, "rank 1 is out of luck");
        ranks.all_gather(CALL, &[])
    });
    let first = first.expect_err("rank 1 failed");
    assert_eq!((first.rank, first.op, first.step), (1, "test", 7));
    assert_eq!(first.failure.to_string(), "it panicked: rank 1 is out of luck");
}

#[test]
fn a_rank_that_hangs_is_named() {
    let first = run_all(3, |ranks| {
        if ranks.rank() == 2 {
            sleep(Duration::from_millis(400));
            return Ok(());
        }
        ranks.all_gather(Call { patience: Duration::from_millis(50), ..CALL }, &[]).map(|_| ())
    });
    let Failure::Error(error) = first.expect_err("rank 2 did not come").failure else { panic!("an error") };
    assert_eq!(error.to_string(), "rank 2 was lost at `test` of step 7: it did not come within 0.05 s");
}

#[test]
fn a_rank_that_does_something_else_is_named() {
    let first = run_all(2, |ranks| {
        let step = 7 + ranks.rank() as u64;
        ranks.all_gather(Call { step, ..CALL }, &[])
    });
    let Failure::Error(ParallelError::OutOfStep { .. }) = first.expect_err("they differ").failure else {
        panic!("another error")
    };
}
