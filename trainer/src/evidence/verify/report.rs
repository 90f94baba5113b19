//! What a verification found: one line a check, and a verdict.

use serde::Serialize;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As claimed.
    Ok,
    /// Not as claimed.
    Failed,
    /// Not looked at, for the reason in the message.
    Skipped,
}

/// One thing that was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: `lock`, `files`, `signature`, `recipe`, `model`, `data.train.0`, `samples`, `steps`, ...
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// What was found; a fault names the file or the value, and what was claimed of it.
    pub message: String,
}

impl Check {
    /// The check as a line.
    pub fn line(&self) -> String {
        let status = match self.status {
            Status::Ok => "ok    ",
            Status::Failed => "FAILED",
            Status::Skipped => "-     ",
        };
        format!("{status}  {:<13} {}", self.name, self.message)
    }
}

/// All checks, in the order they were made. Each is told at once, since the later ones take their time.
pub struct Report<'a> {
    checks: Vec<Check>,
    tell: &'a mut dyn FnMut(&Check),
}

impl<'a> Report<'a> {
    /// Starts an empty report.
    pub fn new(tell: &'a mut dyn FnMut(&Check)) -> Self {
        Self { checks: Vec::new(), tell }
    }

    /// Notes that something is as claimed.
    pub fn ok(&mut self, name: &str, message: impl Into<String>) {
        self.add(name, Status::Ok, message.into());
    }

    /// Notes that something is not as claimed.
    pub fn failed(&mut self, name: &str, message: impl Into<String>) {
        self.add(name, Status::Failed, message.into());
    }

    /// Notes that something was not looked at.
    pub fn skipped(&mut self, name: &str, message: impl Into<String>) {
        self.add(name, Status::Skipped, message.into());
    }

    /// Notes every fault, or that there is none.
    pub fn faults(&mut self, name: &str, faults: Vec<String>, otherwise: impl FnOnce() -> String) -> bool {
        if faults.is_empty() {
            self.ok(name, otherwise());
            return true;
        }
        for fault in faults {
            self.failed(name, fault);
        }
        false
    }

    fn add(&mut self, name: &str, status: Status, message: String) {
        let check = Check { name: name.to_owned(), status, message };
        (self.tell)(&check);
        self.checks.push(check);
    }

    /// Ends the report.
    pub fn finish(self) -> Verdict {
        let count = |status| self.checks.iter().filter(|check| check.status == status).count();
        let (failed, passed) = (count(Status::Failed), count(Status::Ok));
        let skipped = count(Status::Skipped);
        Verdict { verified: failed == 0 && passed > 0, failed, passed, skipped, checks: self.checks }
    }
}

/// What a verification comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether something was compared and all of it is as claimed.
    pub verified: bool,
    /// Checks that failed.
    pub failed: usize,
    /// Checks that passed.
    pub passed: usize,
    /// Checks that were not made.
    pub skipped: usize,
    /// Each check.
    pub checks: Vec<Check>,
}
