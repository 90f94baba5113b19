//! What a launcher's environment says of this process: which rank of how many it is.
//!
//! The first source that is there decides: `RANK` and `WORLD_SIZE` (torchrun, PyTorchJob, Ray), `PET_*`
//! (Kubeflow), `OMPI_COMM_WORLD_*` (mpirun), `SLURM_*` (srun), and `JOB_COMPLETION_INDEX` with `WORLD_SIZE` (indexed
//! jobs). Nothing here is trusted: a contradiction is an error, never a guess.

use super::ParallelError;

/// More ranks than any cluster has.
const MOST_RANKS: u64 = 1 << 16;

/// What [`read`] reads: whoever starts ranks takes away what another launcher has said.
pub const VARIABLES: [&str; 23] = [
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_USE_AGENT_STORE",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "PET_NODE_RANK",
    "PET_NNODES",
    "PET_NPROC_PER_NODE",
    "PET_MASTER_ADDR",
    "PET_MASTER_PORT",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "SLURM_STEP_ID",
    "SLURM_PROCID",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_LOCALID",
    "JOB_COMPLETION_INDEX",
];

/// This process among those that a launcher has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Which rank this is.
    pub rank: usize,
    /// How many there are; two at least.
    pub ranks: usize,
    /// How many of them are on this machine, where the launcher says.
    pub on_this_machine: Option<usize>,
    /// Which of those it is; 0 where the launcher does not say.
    pub local_rank: usize,
    /// Whether that launcher starts MPI ranks.
    pub starts_mpi: bool,
    /// Where that was read, like `RANK` and `WORLD_SIZE`.
    pub by: &'static str,
}

/// What `mpirun` sets.
const OF_MPIRUN: &str = "`OMPI_COMM_WORLD_RANK` and `OMPI_COMM_WORLD_SIZE`";

impl Launch {
    /// Whether `mpirun` has started this process.
    pub fn is_of_mpirun(&self) -> bool {
        self.by == OF_MPIRUN
    }
}

/// Reads variables of the environment; an empty one counts as absent.
struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn number(&self, name: &str) -> Result<Option<u64>, ParallelError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|&number| number <= MOST_RANKS);
        let bad = || ParallelError::BadVariable {
            name: name.to_owned(),
            found: text.chars().take(40).collect(),
            must: "a whole number up to 65536",
        };
        Ok(Some(number.ok_or_else(bad)?))
    }

    /// Reads two variables that are nothing without each other.
    fn pair(&self, rank: &str, ranks: &str) -> Result<Option<(u64, u64)>, ParallelError> {
        let half = |found: &str, missing: &str| ParallelError::HalfLaunched {
            found: found.to_owned(),
            missing: missing.to_owned(),
        };
        match (self.number(rank)?, self.number(ranks)?) {
            (Some(rank), Some(ranks)) => Ok(Some((rank, ranks))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(half(rank, ranks)),
            (None, Some(_)) => Err(half(ranks, rank)),
        }
    }
}

/// Reads the environment of this process.
///
/// # Errors
/// As [`read`].
pub fn from_env() -> Result<Option<Launch>, ParallelError> {
    read(&|name| std::env::var(name).ok())
}

/// Reads what a launcher says of this process; nothing when it is alone.
///
/// # Errors
/// [`ParallelError::HalfLaunched`], [`ParallelError::BadVariable`], [`ParallelError::BadRank`].
pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Launch>, ParallelError> {
    let env = Variables(variable);
    // Indexed jobs give the index, and leave the number of ranks to us.
    let is_indexed = env.text("JOB_COMPLETION_INDEX").is_some() && env.text("RANK").is_none();
    if !is_indexed && let Some((rank, ranks)) = env.pair("RANK", "WORLD_SIZE")? {
        let here = env.number("LOCAL_WORLD_SIZE")?;
        let local_rank = env.number("LOCAL_RANK")?;
        return launch(
            "`RANK` and `WORLD_SIZE`",
            rank,
            ranks,
            Here { ranks: here, local_rank, ..Here::default() },
        );
    }
    if let Some((rank, ranks)) = env.pair("PET_NODE_RANK", "PET_NNODES")? {
        one_process_a_pod(&env)?;
        return launch("`PET_NODE_RANK` and `PET_NNODES`", rank, ranks, Here::ALONE);
    }
    if let Some((rank, ranks)) = env.pair("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")? {
        let here = env.number("OMPI_COMM_WORLD_LOCAL_SIZE")?;
        let local_rank = env.number("OMPI_COMM_WORLD_LOCAL_RANK")?;
        let here = Here { ranks: here, local_rank, starts_mpi: true };
        return launch(OF_MPIRUN, rank, ranks, here);
    }
    // A batch script sees the variables of its job; only what `srun` starts has a step.
    if env.text("SLURM_STEP_ID").is_some()
        && env.text("SLURM_PROCID").is_some()
        && let Some((rank, ranks)) = env.pair("SLURM_PROCID", "SLURM_NTASKS")?
        && ranks > 1
    {
        let here = Here {
            ranks: slurm_tasks_here(&env),
            local_rank: env.number("SLURM_LOCALID")?,
            starts_mpi: true,
        };
        return launch("`SLURM_PROCID` and `SLURM_NTASKS`", rank, ranks, here);
    }
    // An index alone is no rank: indexed jobs are also used for runs that have nothing to do with each other.
    if is_indexed && env.text("WORLD_SIZE").is_some() {
        let pair = env.pair("JOB_COMPLETION_INDEX", "WORLD_SIZE")?;
        let (rank, ranks) = pair.expect("both are there");
        return launch("`JOB_COMPLETION_INDEX` and `WORLD_SIZE`", rank, ranks, Here::ALONE);
    }
    Ok(None)
}

/// What a launcher says of this machine.
#[derive(Clone, Copy, Default)]
struct Here {
    ranks: Option<u64>,
    local_rank: Option<u64>,
    starts_mpi: bool,
}

impl Here {
    const ALONE: Here = Here { ranks: Some(1), local_rank: None, starts_mpi: false };
}

fn launch(by: &'static str, rank: u64, ranks: u64, here: Here) -> Result<Option<Launch>, ParallelError> {
    if rank >= ranks {
        return Err(ParallelError::BadRank { rank, ranks, by });
    }
    let on_this_machine = here.ranks.filter(|here| (1..=ranks).contains(here)).map(|here| here as usize);
    let local_rank = here.local_rank.unwrap_or(0) as usize;
    let Here { starts_mpi, .. } = here;
    let launch =
        Launch { rank: rank as usize, ranks: ranks as usize, on_this_machine, local_rank, starts_mpi, by };
    Ok((ranks > 1).then_some(launch))
}

/// Kubeflow describes pods to torchrun, which would start processes in them. Here each pod runs one.
fn one_process_a_pod(env: &Variables) -> Result<(), ParallelError> {
    match env.text("PET_NPROC_PER_NODE").as_deref() {
        None | Some("1" | "auto" | "cpu") => Ok(()),
        Some(other) => Err(ParallelError::BadVariable {
            name: "PET_NPROC_PER_NODE".to_owned(),
            found: other.chars().take(40).collect(),
            must: "1, since each pod runs one rank",
        }),
    }
}

/// Reads the tasks on this node out of `SLURM_TASKS_PER_NODE`, when all nodes have as many: `4` or `4(x2)`.
fn slurm_tasks_here(env: &Variables) -> Option<u64> {
    let text = env.text("SLURM_STEP_TASKS_PER_NODE").or_else(|| env.text("SLURM_TASKS_PER_NODE"))?;
    let (tasks, rest) =
        text.split_once('(').map_or((text.as_str(), None), |(tasks, rest)| (tasks, Some(rest)));
    let is_one_group =
        rest.is_none_or(|rest| rest.starts_with('x') && rest.ends_with(')') && !rest.contains(','));
    tasks.parse().ok().filter(|_| is_one_group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(variables: &[(&str, &str)]) -> Result<Option<Launch>, ParallelError> {
        read(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn of_each_launcher() {
        const OMPI: [(&str, &str); 3] = [
            ("OMPI_COMM_WORLD_RANK", "3"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
        ];
        const SLURM: [(&str, &str); 4] = [
            ("SLURM_STEP_ID", "0"),
            ("SLURM_PROCID", "5"),
            ("SLURM_NTASKS", "8"),
            ("SLURM_TASKS_PER_NODE", "4(x2)"),
        ];
        const PET: [(&str, &str); 3] =
            [("PET_NNODES", "3"), ("PET_NODE_RANK", "2"), ("PET_NPROC_PER_NODE", "auto")];
        const INDEXED: [(&str, &str); 2] = [("JOB_COMPLETION_INDEX", "1"), ("WORLD_SIZE", "6")];
        const TORCHRUN: [(&str, &str); 3] = [("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")];
        type Case<'a> = (Vec<(&'a str, &'a str)>, Option<(usize, usize, Option<usize>)>);
        let cases: Vec<Case> = vec![
            (vec![], None),
            (TORCHRUN.to_vec(), Some((0, 2, Some(2)))),
            (OMPI.to_vec(), Some((3, 4, Some(2)))),
            (SLURM.to_vec(), Some((5, 8, Some(4)))),
            (PET.to_vec(), Some((2, 3, Some(1)))),
            (INDEXED.to_vec(), Some((1, 6, Some(1)))),
            // PyTorchJob says nothing of the machine.
            (vec![("RANK", "1"), ("WORLD_SIZE", "2")], Some((1, 2, None))),
            // The order.
            ([&TORCHRUN[..], &PET, &OMPI, &SLURM, &INDEXED[..1]].concat(), Some((0, 2, Some(2)))),
            ([&PET[..], &OMPI, &SLURM].concat(), Some((2, 3, Some(1)))),
            ([&OMPI[..], &SLURM, &INDEXED].concat(), Some((3, 4, Some(2)))),
            ([&SLURM[..], &INDEXED].concat(), Some((5, 8, Some(4)))),
            // One process is alone, whoever started it.
            (vec![("RANK", "0"), ("WORLD_SIZE", "1")], None),
            (vec![("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")], None),
            (vec![("SLURM_STEP_ID", "0"), ("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1")], None),
            // A batch script outside of `srun`, a job whose indexes are no ranks, empty variables.
            (SLURM[1..].to_vec(), None),
            (INDEXED[..1].to_vec(), None),
            (vec![("RANK", ""), ("WORLD_SIZE", " ")], None),
        ];
        for (variables, expected) in cases {
            let found = read_from(&variables).unwrap_or_else(|error| panic!("{variables:?}: {error}"));
            let found = found.map(|one| (one.rank, one.ranks, one.on_this_machine));
            assert_eq!(found, expected, "{variables:?}");
        }
    }

    #[test]
    fn which_of_this_machine_it_is() {
        let of = |variables: &[(&str, &str)]| {
            let launch = read_from(variables).expect("valid").expect("several ranks");
            (launch.local_rank, launch.starts_mpi)
        };
        assert_eq!(of(&[("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")]), (1, false));
        assert_eq!(of(&[("RANK", "3"), ("WORLD_SIZE", "4")]), (0, false));
        let mpirun = [("OMPI_COMM_WORLD_RANK", "3"), ("OMPI_COMM_WORLD_SIZE", "4")];
        assert_eq!(of(&[&mpirun[..], &[("OMPI_COMM_WORLD_LOCAL_RANK", "2")]].concat()), (2, true));
        let srun =
            [("SLURM_STEP_ID", "0"), ("SLURM_PROCID", "5"), ("SLURM_NTASKS", "8"), ("SLURM_LOCALID", "1")];
        assert_eq!(of(&srun), (1, true));
        assert_eq!(of(&[("PET_NNODES", "3"), ("PET_NODE_RANK", "2")]), (0, false));
    }

    #[test]
    fn contradictions_are_errors() {
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[("RANK", "1")], "`RANK` is set, but `WORLD_SIZE` is not"),
            (&[("WORLD_SIZE", "2")], "`WORLD_SIZE` is set, but `RANK` is not"),
            (&[("PET_NNODES", "2")], "`PET_NNODES` is set, but `PET_NODE_RANK` is not"),
            (&[("RANK", "2"), ("WORLD_SIZE", "2")], "`RANK` and `WORLD_SIZE` say rank 2 of 2"),
            (
                &[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "0")],
                "`OMPI_COMM_WORLD_RANK` and `OMPI_COMM_WORLD_SIZE` say rank 0 of 0",
            ),
            (
                &[("RANK", "-1"), ("WORLD_SIZE", "2")],
                "`RANK` is `-1`, which is not a whole number up to 65536",
            ),
            (
                &[("RANK", "0"), ("WORLD_SIZE", "99999999999999999999")],
                "`WORLD_SIZE` is `99999999999999999999`, which is not a whole number up to 65536",
            ),
            (
                &[("PET_NNODES", "2"), ("PET_NODE_RANK", "0"), ("PET_NPROC_PER_NODE", "gpu")],
                "`PET_NPROC_PER_NODE` is `gpu`, which is not 1, since each pod runs one rank",
            ),
        ];
        for (variables, expected) in cases {
            let error = read_from(variables).expect_err("must be refused");
            assert_eq!(error.to_string(), expected);
            assert!(error.hint().is_some() && error.exit() == crate::error::Exit::Usage, "{error}");
        }
    }
}
