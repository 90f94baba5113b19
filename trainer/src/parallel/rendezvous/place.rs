//! Where and for which run ranks meet, out of a launcher's environment.

use sha2::{Digest, Sha256};

use super::MeetingError;

/// The variable that goes before all others.
pub(super) const PORT: &str = "SEEDCORN_MASTER_PORT";
/// As torchrun has it.
const DEFAULT_PORT: u16 = 29500;

/// The place of a meeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A name or an address.
    pub(super) address: String,
    pub(super) port: u16,
    /// A hash of what tells this run from one before it, where the launcher says.
    pub(super) run: [u8; 32],
}

impl Place {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// As [`Place::read`].
    pub fn from_env() -> Result<Place, MeetingError> {
        Place::read(&|name| std::env::var(name).ok())
    }

    /// Reads `MASTER_ADDR` and `MASTER_PORT`, or Kubeflow's `PET_*`. torchrun's agent may hold that port itself; the next
    /// one is taken then.
    ///
    /// # Errors
    /// [`MeetingError::NoAddress`], [`MeetingError::BadPort`].
    pub(super) fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Place, MeetingError> {
        let text = |name| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let port = |name| {
            let Some(found) = text(name) else { return Ok(None) };
            match found.parse().ok().filter(|port| *port > 0) {
                None => Err(MeetingError::BadPort { name, found: found.chars().take(40).collect() }),
                port => Ok(port),
            }
        };
        let by_agent = text("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True");
        let (address, given) = match text("MASTER_ADDR") {
            Some(address) => (Some(address), port("MASTER_PORT")?),
            None => (text("PET_MASTER_ADDR"), port("PET_MASTER_PORT")?),
        };
        let given: u16 = given.unwrap_or(DEFAULT_PORT);
        let port = match port(PORT)? {
            Some(port) => port,
            None if by_agent => given.checked_add(1).unwrap_or(given - 1),
            None => given,
        };
        let mut run = Sha256::new();
        for name in ["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_STEP_ID"] {
            let value = text(name).unwrap_or_default();
            run.update((value.len() as u64).to_le_bytes());
            run.update(value);
        }
        Ok(Place { address: address.ok_or(MeetingError::NoAddress)?, port, run: run.finalize().into() })
    }

    /// Shows where it is.
    pub(super) fn shown(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }
}
