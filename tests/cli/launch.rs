//! `seedcorn launch`: the ranks of a run as processes of this machine.

use insta::assert_snapshot;

use crate::stage::Stage;

#[test]
#[cfg(not(any(feature = "mpi", feature = "nccl")))]
fn without_an_engine() {
    let stage = Stage::new();
    assert_snapshot!(stage.seedcorn("launch --ranks 2 -- train recipe.toml"), @r#"
    exit 2
    ----- stderr
    error: this program was built without a way for processes to reach each other

    hint: build with `--features mpi`, or run the ranks as threads: `seedcorn train RECIPE --set parallel.data=2`
    "#);
    assert!(!stage.seedcorn("--help").contains("launch"));
    assert!(!stage.path("run").exists());
}

#[test]
#[cfg(all(feature = "mpi", not(feature = "nccl")))]
fn help() {
    assert_snapshot!(Stage::new().seedcorn("launch --help"));
}

/// What the ranks would all say is said once, before any is started.
#[test]
#[cfg(feature = "mpi")]
fn of_what_cannot_run() {
    let stage = Stage::new();
    assert_snapshot!(stage.seedcorn("launch --ranks 3 -- train recipe.toml"), @r#"
    exit 2
    ----- stderr
    error: `parallel.data` (3) does not divide the 2 micro-batches of a step

    hint: use 1 or 2, or change `train.batch_size` or `train.micro_batch`
    "#);
    assert_snapshot!(stage.seedcorn("launch --ranks 2 -- check recipe.toml"), @r#"
    exit 2
    ----- stderr
    error: `check` runs in one process; only `train` has ranks

    hint: run `seedcorn check` without `launch`
    "#);
    assert_snapshot!(stage.seedcorn("launch --ranks 2 -- train recipe.toml --tset a=1"), @r#"
    exit 2
    ----- stderr
    error: unexpected argument '--tset' found

      tip: a similar argument exists: '--set'

    Usage: seedcorn train --set <KEY=VALUE> <RECIPE>

    For more information, try '--help'.
    "#);
    let mut command = stage.command(env!("CARGO_BIN_EXE_seedcorn"));
    command
        .args("launch --ranks 2 -- train recipe.toml".split(' '))
        .envs([("RANK", "1"), ("WORLD_SIZE", "2")]);
    assert_snapshot!(stage.show(&command.output().unwrap()), @r#"
    exit 2
    ----- stderr
    error: this process is rank 1 of 2 already (`RANK` and `WORLD_SIZE`)

    hint: start `seedcorn train` from that launcher, or unset `RANK` and `WORLD_SIZE`
    "#);
    let mut command = stage.command(env!("CARGO_BIN_EXE_seedcorn"));
    command.args("launch --ranks 2 -- train recipe.toml".split(' ')).env("PATH", "/nowhere");
    assert_snapshot!(stage.show(&command.output().unwrap()), @r#"
    exit 2
    ----- stderr
    error: `mpirun` is not found

    hint: install Open MPI (`scripts/setup/mpi.sh` on Debian), or put `mpirun` on the `PATH`
    "#);
    assert!(!stage.path("run").exists());
}

#[cfg(feature = "mpi")]
mod under_mpi {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::ranks::{signal, wait_for_a_step};
    use crate::runs::adapter;

    /// A run that does not end by itself while a test looks at it.
    const LONG: &str = "--set train.steps=100000 --set checkpoint.every_steps=50 --quiet";

    fn start(stage: &Stage) -> Child {
        let mut command = stage.command(env!("CARGO_BIN_EXE_seedcorn"));
        command.args(["launch", "--ranks", "2", "--", "train", "recipe.toml"]).args(LONG.split(' '));
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        wait_for_a_step(stage, "run", &mut child);
        child
    }

    #[test]
    fn two_ranks_have_the_bits_of_one() {
        let stage = Stage::new();
        let shown = stage.seedcorn("launch --ranks 2 --quiet -- train recipe.toml");
        assert_eq!(shown, "exit 0");
        assert!(stage.train("--set output=one --quiet").starts_with("exit 0"));
        assert!(adapter(&stage, "run") == adapter(&stage, "one"));
        let lock = stage.read("run/run.lock");
        assert!(lock.contains("data = 2"), "{lock}");
    }

    /// The machines of a batch system are not looked at: this one may not be among them.
    #[test]
    fn within_an_allocation() {
        let stage = Stage::new();
        let mut command = stage.command(env!("CARGO_BIN_EXE_seedcorn"));
        command.args("launch --ranks 2 --quiet -- train recipe.toml".split(' ')).envs([
            ("SLURM_JOB_ID", "1"),
            ("SLURM_JOBID", "1"),
            ("SLURM_NODELIST", "node[7-8]"),
            ("SLURM_NNODES", "2"),
            ("SLURM_NTASKS", "2"),
            ("SLURM_TASKS_PER_NODE", "1(x2)"),
        ]);
        assert_eq!(stage.show(&command.output().unwrap()), "exit 0");
    }

    /// Of two numbers there is one sum: MPI's is that of the tree.
    #[test]
    fn mpi_may_add_the_gradients() {
        let stage = Stage::new();
        let shown =
            stage.seedcorn("launch --ranks 2 --quiet -- train recipe.toml --set parallel.reduction=fast");
        assert_eq!(shown, "exit 0");
        assert!(stage.train("--set output=one --quiet").starts_with("exit 0"));
        assert!(adapter(&stage, "run") == adapter(&stage, "one"));
    }

    /// A failure that all ranks have in common is told once, without the frames of `mpirun`.
    #[test]
    fn a_failure_is_told_once() {
        let stage = Stage::new();
        assert_snapshot!(
            stage.seedcorn("launch --ranks 2 -- train recipe.toml --quiet --set optimizer.lr=1e30 --set schedule.kind=constant"),
            @r#"
            exit 1
            ----- stderr
            error: loss is not finite at step 2 (NaN); the update was not applied

            hint: the step's samples are in `run/bad/step-000002.jsonl`; resume from the last checkpoint with a lower `optimizer.lr`
            "#
        );
    }

    #[test]
    fn a_rank_that_is_killed_ends_the_others() {
        let stage = Stage::new();
        let child = start(&stage);
        let started = Instant::now();
        // The children of `mpirun`, which is the only child of ours.
        let mpirun = children(child.id())[0];
        signal(children(mpirun)[1], "KILL");
        assert_snapshot!(stage.show(&child.wait_with_output().unwrap()), @r#"
        exit 3
        ----- stderr
        error: rank 1 was ended by SIGKILL

        hint: all ranks have ended; continue with `--resume`, on as many ranks as you like; if nobody killed it, the machine had no memory left (`seedcorn plan`)
        "#);
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn the_first_signal_saves() {
        let stage = Stage::new();
        let child = start(&stage);
        signal(child.id(), "TERM");
        let shown = stage.show(&child.wait_with_output().unwrap());
        assert!(shown.starts_with("exit 1\n----- stderr\nerror: stopped by a signal after step "), "{shown}");
        assert!(shown.ends_with("hint: the state is saved; continue with `--resume`"), "{shown}");
    }

    #[test]
    fn the_second_signal_ends() {
        let stage = Stage::new();
        let child = start(&stage);
        // A rank that stands still does not save.
        let mpirun = children(child.id())[0];
        signal(children(mpirun)[0], "STOP");
        for _ in 0..2 {
            signal(child.id(), "INT");
            std::thread::sleep(Duration::from_millis(300));
        }
        let shown = stage.show(&child.wait_with_output().unwrap());
        let end = "error: all ranks were ended at once by a second signal\n\n\
                   hint: all ranks have ended; continue with `--resume`, on as many ranks as you like";
        assert!(shown.starts_with("exit 1\n") && shown.ends_with(end), "{shown}");
    }

    /// Nothing is left behind by a launcher that is killed itself.
    #[test]
    fn ranks_end_with_the_launcher() {
        let stage = Stage::new();
        let mut child = start(&stage);
        let mpirun = children(child.id())[0];
        let ranks = children(mpirun);
        signal(child.id(), "KILL");
        child.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let is_alive = |pid: &u32| {
            fs_err::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        while ranks.iter().any(is_alive) {
            assert!(Instant::now() < deadline, "ranks {ranks:?} go on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the children of a process, in the order of their numbers.
    fn children(pid: u32) -> Vec<u32> {
        let output = Command::new("pgrep").args(["-P", &pid.to_string()]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect()
    }
}
