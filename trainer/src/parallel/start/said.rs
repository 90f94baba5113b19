//! What `mpirun` says of a rank that ended badly: framed by lines of dashes, among what the ranks say.
//!
//! We say the same in one sentence, so these frames are not shown; whatever else stands in a frame is.

use std::sync::OnceLock;

use regex::Regex;

/// How the lines of a frame begin that say only that a rank has ended.
const KNOWN: [&str; 13] = [
    "Primary job  terminated normally, but ",
    "a non-zero exit code. Per user-direction",
    "mpirun noticed that process rank ",
    "MPI_ABORT was invoked on rank ",
    "with errorcode ",
    "NOTE: invoking MPI_ABORT causes",
    "You may or may not see output from other processes",
    "exactly when Open MPI kills them",
    "mpirun detected that one or more processes exited",
    "the job to be terminated. The first process to do so was:",
    "Process name: [[",
    "Exit code: ",
    "mpirun has exited due to ",
];
/// It says so of every signal that we send.
const FORWARDED: &str = "mpirun: Forwarding signal ";
/// Lines of a frame at most; a longer one is none of those.
const LONGEST: usize = 12;

/// Goes through the lines that `mpirun` and the ranks say.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The lines of a frame since its beginning.
    frame: Option<Vec<String>>,
    /// The first rank that a signal has ended, with the signal.
    pub(super) killed: Option<(usize, i32)>,
}

impl Said {
    /// Takes a line with its end, and returns what of it and the lines before is to be shown.
    pub(super) fn line(&mut self, line: String) -> Vec<String> {
        if let Some(found) = killed(&line) {
            self.killed.get_or_insert(found);
        }
        if line.starts_with(FORWARDED) {
            return Vec::new();
        }
        match (self.frame.take(), is_border(&line)) {
            (None, false) => vec![line],
            (None, true) => {
                self.frame = Some(vec![line]);
                Vec::new()
            }
            (Some(mut frame), true) => {
                frame.push(line);
                if is_known(&frame) { Vec::new() } else { frame }
            }
            (Some(mut frame), false) => {
                frame.push(line);
                if frame.len() > LONGEST {
                    return frame;
                }
                self.frame = Some(frame);
                Vec::new()
            }
        }
    }

    /// Returns what was held back, at the end.
    pub(super) fn rest(&mut self) -> Vec<String> {
        self.frame.take().unwrap_or_default()
    }
}

fn is_border(line: &str) -> bool {
    let line = line.trim_end();
    line.len() >= 70 && line.bytes().all(|byte| byte == b'-')
}

fn is_known(frame: &[String]) -> bool {
    let inside = &frame[1..frame.len() - 1];
    let known = |line: &String| {
        let line = line.trim();
        line.is_empty() || KNOWN.iter().any(|known| line.starts_with(known.trim()))
    };
    inside.iter().all(known)
}

fn killed(line: &str) -> Option<(usize, i32)> {
    static PATTERN: OnceLock<Regex> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| {
        Regex::new(r"noticed that process rank (\d+) .*exited on signal (\d+)").expect("a pattern")
    });
    let found = pattern.captures(line)?;
    Some((found[1].parse().ok()?, found[2].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BORDER: &str = "--------------------------------------------------------------------------\n";

    fn shown(lines: &[&str]) -> (String, Option<(usize, i32)>) {
        let mut said = Said::default();
        let mut shown: Vec<String> = lines.iter().flat_map(|line| said.line((*line).to_owned())).collect();
        shown.extend(said.rest());
        (shown.concat(), said.killed)
    }

    /// As Open MPI 4.1.4 says it.
    #[test]
    fn a_rank_that_was_killed() {
        let lines = [
            "step 1\n",
            "mpirun: Forwarding signal 10 to job\n",
            BORDER,
            "Primary job  terminated normally, but 1 process returned\n",
            "a non-zero exit code. Per user-direction, the job has been aborted.\n",
            BORDER,
            BORDER,
            "mpirun noticed that process rank 1 with PID 0 on node vm exited on signal 9 (Killed).\n",
            BORDER,
        ];
        assert_eq!(shown(&lines), ("step 1\n".to_owned(), Some((1, 9))));
    }

    #[test]
    fn a_rank_that_aborted() {
        let lines = [
            BORDER,
            "MPI_ABORT was invoked on rank 2 in communicator MPI_COMM_WORLD\n",
            "with errorcode 3.\n",
            "\n",
            "NOTE: invoking MPI_ABORT causes Open MPI to kill all MPI processes.\n",
            "You may or may not see output from other processes, depending on\n",
            "exactly when Open MPI kills them.\n",
            BORDER,
            "[rank 2] error: no disk\n",
        ];
        assert_eq!(shown(&lines), ("[rank 2] error: no disk\n".to_owned(), None));
    }

    #[test]
    fn all_else_is_shown() {
        let slots = [BORDER, "There are not enough slots available in the system\n", BORDER, "after\n"];
        assert_eq!(shown(&slots).0, slots.concat());
        // A rank spoke in between; a frame never ended; one was too long.
        let between = [BORDER, "with errorcode 3.\n", "[rank 0] error: no disk\n", BORDER];
        assert_eq!(shown(&between).0, between.concat());
        let open = [BORDER, "with errorcode 3.\n"];
        assert_eq!(shown(&open).0, open.concat());
        let long = [[BORDER].as_slice(), &["\n"; 30]].concat();
        assert_eq!(shown(&long).0, long.concat());
    }
}
