//! Whether `mpirun` has tied this process to some of the processors that it may use itself. It does so unless told
//! otherwise: to one core each of two ranks, and a rank computes with all threads that it can get.

use super::launch::Launch;

/// A process that was tied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Processors of this process.
    pub own: usize,
    /// Processors of the one that has started it.
    pub all: usize,
}

impl Binding {
    /// Looks whether `mpirun` has tied this process; nothing where it has not, or the system does not say.
    pub fn of(launch: &Launch) -> Option<Binding> {
        if !launch.is_of_mpirun() {
            return None;
        }
        let own = fs_err::read_to_string("/proc/self/status").ok()?;
        let parent = field(&own, "PPid")?;
        let parent = fs_err::read_to_string(format!("/proc/{parent}/status")).ok()?;
        let processors = |status: &str| count(field(status, "Cpus_allowed_list")?);
        let (own, all) = (processors(&own)?, processors(&parent)?);
        (own < all).then_some(Binding { own, all })
    }

    /// Says what is lost when this is less than the share of one of so many ranks.
    pub fn warning(self, on_this_machine: usize) -> Option<String> {
        let Binding { own, all } = self;
        let share = all / on_this_machine.max(1);
        (own < share).then(|| {
            format!(
                "`mpirun` ties each rank to {own} of {all} processors; with `--bind-to none` each of \
                 {on_this_machine} ranks uses {share}"
            )
        })
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = status.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value.trim())
}

/// Counts the numbers of a list like `0-3,8`.
fn count(list: &str) -> Option<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.split(',').map(range).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted() {
        assert_eq!((count("0"), count("0-3"), count("0-3,8,10-11")), (Some(1), Some(4), Some(7)));
        assert_eq!((count(""), count("3-1"), count("a-b")), (None, None, None));
        let status = "Name:\tsh\nPPid:\t71\nCpus_allowed:\tff\nCpus_allowed_list:\t0-7\n";
        assert_eq!((field(status, "PPid"), field(status, "Cpus_allowed_list")), (Some("71"), Some("0-7")));
    }

    #[test]
    fn less_than_a_share_is_told() {
        let of = |own, all| Binding { own, all }.warning(2);
        assert_eq!((of(8, 16), of(16, 32), of(1, 2)), (None, None, None));
        let said = of(1, 16).expect("one core is little");
        assert!(said.starts_with("`mpirun` ties each rank to 1 of 16 processors; with"), "{said}");
        assert!(said.ends_with("each of 2 ranks uses 8"), "{said}");
    }
}
