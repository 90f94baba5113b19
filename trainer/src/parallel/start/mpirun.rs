//! Ranks under Open MPI's `mpirun`.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use super::error::told;
use super::said::Said;
use super::signals::{Wish, Wishes, alone, send};
use super::{Start, StartError};

/// How often signals and the end are looked for.
const PAUSE: Duration = Duration::from_millis(20);
/// Who must not be asked for machines: `mpirun` would look for this one among theirs.
const BATCH_SYSTEMS: &str = "^slurm,tm,lsf,gridengine";
/// The same, as a list in a file.
const HOSTS: &str = "OMPI_MCA_orte_default_hostfile";
/// What a shell adds to the number of a signal that has ended a process.
const BY_SIGNAL: i32 = 128;

pub(super) fn run(start: &Start) -> Result<(), StartError> {
    let mut wishes = Wishes::listen().map_err(StartError::Signals)?;
    let mpirun = find().ok_or(StartError::NoMpirun)?;
    let mut command = Command::new(&mpirun);
    alone(&mut command).env_remove(HOSTS).args(arguments(start)).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|source| StartError::Program { program: mpirun.display().to_string(), source })?;
    let spoken = child.stderr.take().expect("it is piped");
    let listener = thread::spawn(move || listen(spoken));
    let (status, ended) = wait(&mut child, &mut wishes)
        .map_err(|source| StartError::Program { program: mpirun.display().to_string(), source })?;
    let said = listener.join().unwrap_or_default();
    if ended {
        return Err(StartError::Stopped);
    }
    outcome(status, said.killed)
}

/// What `mpirun` is to do: all ranks here, wherever a batch system would put them, each on all cores (with two ranks or fewer
/// `mpirun` would tie each to one).
fn arguments(start: &Start) -> Vec<OsString> {
    let ranks = start.ranks.to_string();
    let host = format!("localhost:{ranks}");
    let mut arguments: Vec<OsString> = Vec::new();
    if is_root() {
        arguments.push("--allow-run-as-root".into());
    }
    arguments.extend(["--mca", "ras", BATCH_SYSTEMS, "--host", &host].map(Into::into));
    arguments.extend(["--bind-to", "none", "-np", &ranks].map(Into::into));
    arguments.push(start.program.clone().into());
    arguments.extend(start.args.iter().cloned());
    arguments
}

/// `mpirun` wants to be told that it may.
fn is_root() -> bool {
    #[expect(unsafe_code, reason = "std does not tell")]
    // SAFETY: the call takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    user == 0
}

fn find() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join("mpirun"))
        .find(|path| path.is_absolute() && path.is_file())
}

/// Waits for the end, and whether it was one at once. `mpirun` passes SIGUSR1 on; SIGTERM makes it end the ranks.
fn wait(child: &mut Child, wishes: &mut Wishes) -> io::Result<(ExitStatus, bool)> {
    let mut ended = false;
    loop {
        match wishes.next() {
            Some(Wish::Stop) => send(child, libc::SIGUSR1),
            Some(Wish::End) => {
                ended = true;
                send(child, libc::SIGTERM);
            }
            None => {}
        }
        if let Some(status) = child.try_wait()? {
            return Ok((status, ended));
        }
        thread::sleep(PAUSE);
    }
}

/// Shows what ranks say, and keeps what `mpirun` says of them.
fn listen(spoken: impl Read) -> Said {
    let mut said = Said::default();
    let mut spoken = BufReader::new(spoken);
    let mut line = Vec::new();
    // Nothing is left to tell when stderr is closed, but `mpirun` must not be kept from writing.
    let show =
        |lines: Vec<String>| lines.iter().for_each(|line| drop(io::stderr().write_all(line.as_bytes())));
    while spoken.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        show(said.line(String::from_utf8_lossy(&line).into_owned()));
        line.clear();
    }
    show(said.rest());
    said
}

/// Reads how `mpirun` ended: with the code of the rank that failed first, or 128 and the signal that ended one.
fn outcome(status: ExitStatus, killed: Option<(usize, i32)>) -> Result<(), StartError> {
    match (killed, status.code()) {
        (Some((rank, signal)), _) => Err(StartError::Killed { rank: Some(rank), signal }),
        (None, Some(0)) => Ok(()),
        (None, Some(code)) => Err(match told(code) {
            Some(exit) => StartError::Failed(exit),
            None if code > BY_SIGNAL => StartError::Killed { rank: None, signal: code - BY_SIGNAL },
            None => StartError::Ended { rank: None, code },
        }),
        // `mpirun` itself was killed.
        (None, None) => Err(StartError::Killed { rank: None, signal: signal_of(status) }),
    }
}

fn signal_of(status: ExitStatus) -> i32 {
    std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default()
}
