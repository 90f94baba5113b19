//! Ranks that are children of this process, each with the variables that torchrun would give it.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::error::told;
use super::signals::{Wish, Wishes, alone, send};
use super::{Start, StartError};

/// How often signals and ends are looked for.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the others have to say what they miss, once a rank is gone.
const GRACE: Duration = Duration::from_secs(5);

pub(super) fn run(start: &Start) -> Result<(), StartError> {
    let mut wishes = Wishes::listen().map_err(StartError::Signals)?;
    run_with(start, GRACE, || wishes.next())
}

/// Runs the ranks; `wish` is asked again and again whether they are to stop.
fn run_with(
    start: &Start,
    grace: Duration,
    mut wish: impl FnMut() -> Option<Wish>,
) -> Result<(), StartError> {
    let mut family = Family::default();
    let port = free_port().map_err(StartError::Port)?;
    for rank in 0..start.ranks {
        let mut command = Command::new(&start.program);
        alone(&mut command).args(&start.args).stdin(Stdio::null()).envs(variables(rank, start.ranks, port));
        let child = command.spawn().map_err(|source| {
            let program = start.program.display().to_string();
            StartError::Program { program, source }
        })?;
        family.children.push(Some(child));
    }
    let mut deadline: Option<Instant> = None;
    let mut ended = false;
    while family.is_alive() {
        match wish() {
            Some(Wish::Stop) => family.signal(libc::SIGUSR1),
            Some(Wish::End) => {
                ended = true;
                family.end();
            }
            None => {}
        }
        family.collect().map_err(|source| {
            let program = start.program.display().to_string();
            StartError::Program { program, source }
        })?;
        if family.first.is_some() && *deadline.get_or_insert_with(|| Instant::now() + grace) <= Instant::now()
        {
            family.end();
        }
        thread::sleep(PAUSE);
    }
    match family.first {
        _ if ended => Err(StartError::Stopped),
        None => Ok(()),
        Some((rank, status)) => Err(failure(rank, status)),
    }
}

/// What a rank finds in its environment.
fn variables(rank: usize, ranks: usize, port: u16) -> [(&'static str, String); 6] {
    [
        ("RANK", rank.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("WORLD_SIZE", ranks.to_string()),
        ("LOCAL_WORLD_SIZE", ranks.to_string()),
        ("MASTER_ADDR", Ipv4Addr::LOCALHOST.to_string()),
        ("MASTER_PORT", port.to_string()),
    ]
}

/// Returns a port that was free a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn failure(rank: usize, status: ExitStatus) -> StartError {
    match (status.code(), status.signal()) {
        (Some(code), _) => match told(code) {
            Some(exit) => StartError::Failed(exit),
            None => StartError::Ended { rank: Some(rank), code },
        },
        (None, signal) => StartError::Killed { rank: Some(rank), signal: signal.unwrap_or_default() },
    }
}

/// The ranks that were started; those that are left are killed when this is dropped.
#[derive(Default)]
struct Family {
    children: Vec<Option<Child>>,
    /// The first rank that ended badly, and how.
    first: Option<(usize, ExitStatus)>,
    /// Whether this process has killed those that were left.
    is_ending: bool,
}

impl Family {
    fn is_alive(&self) -> bool {
        self.children.iter().any(Option::is_some)
    }

    fn signal(&self, signal: i32) {
        self.children.iter().flatten().for_each(|child| send(child, signal));
    }

    fn end(&mut self) {
        self.is_ending = true;
        self.signal(libc::SIGKILL);
    }

    /// Looks who has ended. Of several a rank that was killed counts: the others have only missed it.
    fn collect(&mut self) -> io::Result<()> {
        for (rank, slot) in self.children.iter_mut().enumerate() {
            let Some(status) = slot.as_mut().map(Child::try_wait).transpose()?.flatten() else { continue };
            *slot = None;
            if !status.success() && !self.is_ending {
                let first = self.first.get_or_insert((rank, status));
                if first.1.code().is_some() && status.code().is_none() {
                    *first = (rank, status);
                }
            }
        }
        Ok(())
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            // It may be gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    /// Runs a line of shell as each rank.
    fn shell(ranks: usize, line: &str) -> Result<(), StartError> {
        let args = ["-c".into(), line.into()].into();
        run_with(&Start { program: "/bin/sh".into(), args, ranks }, Duration::from_millis(300), || None)
    }

    #[test]
    fn signals_reach_every_rank() {
        let line = "trap 'exit 1' USR1; while :; do sleep 0.05; done";
        let start = Start { program: "/bin/sh".into(), args: vec!["-c".into(), line.into()], ranks: 3 };
        let asked = |wish| {
            // Not before the shells listen.
            let at = Instant::now() + Duration::from_millis(500);
            let mut wish = Some(wish);
            move || if Instant::now() > at { wish.take() } else { None }
        };
        let stopped = run_with(&start, GRACE, asked(Wish::Stop)).expect_err("they end with 1");
        assert!(matches!(stopped, StartError::Failed(Exit::Failed)), "{stopped:?}");
        let ended = run_with(&start, GRACE, asked(Wish::End)).expect_err("they are killed");
        assert!(matches!(ended, StartError::Stopped), "{ended:?}");
    }

    #[test]
    fn each_rank_is_told_which_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let line = "echo $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR >";
        let line = format!("{line} '{}'/$RANK; test $MASTER_PORT -gt 0", folder.path().display());
        shell(3, &line).expect("all end well");
        for rank in 0..3 {
            let said = fs_err::read_to_string(folder.path().join(rank.to_string())).expect("it was there");
            assert_eq!(said, format!("{rank} {rank} 3 3 127.0.0.1\n"));
        }
    }

    #[test]
    fn a_rank_that_fails_ends_the_others() {
        let started = Instant::now();
        let error = shell(3, "test $RANK = 1 && exit 2; exec sleep 60").expect_err("rank 1 fails");
        assert!(matches!(error, StartError::Failed(Exit::Usage)), "{error:?}");
        let error = shell(2, "test $RANK = 1 && exit 99; exec sleep 60").expect_err("rank 1 fails");
        assert_eq!(error.to_string(), "rank 1 ended with exit code 99");
        let error = shell(3, "test $RANK = 2 && kill -9 $$; exec sleep 60").expect_err("rank 2 fails");
        assert_eq!(error.to_string(), "rank 2 was ended by SIGKILL");
        assert_eq!(crate::error::Explain::exit(&error), Exit::Lost);
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    /// The others notice, and end with an error of their own, maybe before the one that was killed is collected.
    #[test]
    fn the_rank_that_was_killed_is_named() {
        let error = shell(2, "test $RANK = 1 && { sleep 0.1; kill -9 $$; }; exit 3").expect_err("both fail");
        assert_eq!(error.to_string(), "rank 1 was ended by SIGKILL");
    }

    #[test]
    fn a_program_that_is_not_there() {
        let start = Start { program: "/nowhere/seedcorn".into(), args: Vec::new(), ranks: 2 };
        let error = run_with(&start, GRACE, || None).expect_err("no program");
        assert_eq!(error.to_string(), "could not start `/nowhere/seedcorn`");
    }
}
