//! Ranks as threads of one process: for trying out a mesh, and for machines with more cores than a model's
//! kernels keep busy. The frozen model is shared, so memory grows by what is trained only.

use std::any::Any;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Bytes, Call, Collective, ParallelError, Pending};

/// How long the other ranks have to notice that one has failed.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// As the first thread of a process has; other threads start with less.
const STACK_BYTES: usize = 8 << 20;

/// What the ranks share.
#[derive(Debug)]
struct Hub {
    state: Mutex<State>,
    changed: Condvar,
}

/// Messages from each rank (outer) to each rank (inner).
type Boxes<T> = Vec<Vec<VecDeque<Message<T>>>>;

#[derive(Debug)]
struct State {
    /// What was sent from each rank (outer) to each rank (inner) and has not been taken.
    boxes: Boxes<Vec<u8>>,
    /// The same of gatherings that go on between other calls.
    gathered: Boxes<Arc<[u8]>>,
    /// The last call of each rank.
    calls: Vec<(&'static str, u64)>,
    /// The rank that failed first, and how.
    failed: Option<(usize, String)>,
}

#[derive(Debug)]
struct Message<T> {
    op: &'static str,
    step: u64,
    content: T,
}

/// A gathering: everything was sent when it began.
#[derive(Debug)]
struct Begun<'a> {
    thread: &'a Thread<'a>,
    members: Vec<usize>,
}

/// One rank's side.
#[derive(Debug)]
struct Thread<'a> {
    rank: usize,
    size: usize,
    hub: &'a Hub,
}

impl Hub {
    fn new(size: usize) -> Self {
        let boxes = (0..size).map(|_| (0..size).map(|_| VecDeque::new()).collect()).collect();
        let gathered = (0..size).map(|_| (0..size).map(|_| VecDeque::new()).collect()).collect();
        let state = State { boxes, gathered, calls: vec![("start", 0); size], failed: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// A rank that panicked has left the state whole: every change is a single push, pop or assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, rank: usize, how: String) {
        self.lock().failed.get_or_insert((rank, how));
        self.changed.notify_all();
    }
}

impl Collective for Thread<'_> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn exchange_among(
        &self,
        call: Call,
        members: &[usize],
        outgoing: &[&[u8]],
    ) -> Result<Vec<Vec<u8>>, ParallelError> {
        let Call { op, step, .. } = call;
        let messages: Vec<Message<Vec<u8>>> =
            outgoing.iter().map(|content| Message { op, step, content: content.to_vec() }).collect();
        let mut state = self.hub.lock();
        state.calls[self.rank] = (op, step);
        for (to, message) in members.iter().zip(messages) {
            state.boxes[self.rank][*to].push_back(message);
        }
        self.hub.changed.notify_all();

        self.receive(state, call, members, |state, from| state.boxes[from][self.rank].pop_front())
    }

    fn start_gather<'a>(
        &'a self,
        call: Call,
        members: &[usize],
        own: Arc<[u8]>,
        _: &[usize],
    ) -> Result<Box<dyn Pending + 'a>, ParallelError> {
        let Call { op, step, .. } = call;
        let mut state = self.hub.lock();
        state.calls[self.rank] = (op, step);
        for to in members {
            state.gathered[self.rank][*to].push_back(Message { op, step, content: own.clone() });
        }
        self.hub.changed.notify_all();
        Ok(Box::new(Begun { thread: self, members: members.to_vec() }))
    }
}

impl Pending for Begun<'_> {
    fn wait(self: Box<Self>, call: Call) -> Result<Vec<Bytes>, ParallelError> {
        let Self { thread, members } = *self;
        let state = thread.hub.lock();
        let next = |state: &mut State, from: usize| state.gathered[from][thread.rank].pop_front();
        Ok(thread.receive(state, call, &members, next)?.into_iter().map(Bytes::Shared).collect())
    }
}

impl Thread<'_> {
    /// Waits for a message of every one of `members`; `next` takes the first from a rank, if it is there.
    fn receive<T>(
        &self,
        mut state: MutexGuard<'_, State>,
        call: Call,
        members: &[usize],
        next: impl Fn(&mut State, usize) -> Option<Message<T>>,
    ) -> Result<Vec<T>, ParallelError> {
        let Call { op, step, .. } = call;
        let deadline = call.deadline();
        let mut incoming = Vec::with_capacity(members.len());
        while let Some(&from) = members.get(incoming.len()) {
            if let Some(message) = next(&mut state, from) {
                if (message.op, message.step) != (op, step) {
                    let shown = |op: &str, step: u64| format!("`{op}` of step {step}");
                    let (got, expected) = (shown(message.op, message.step), shown(op, step));
                    return Err(ParallelError::OutOfStep { rank: from, op, step, got, expected });
                }
                incoming.push(message.content);
                continue;
            }
            // A rank that has sent is not the one to complain of, even if it failed later.
            if let Some((rank, how)) = &state.failed {
                return Err(ParallelError::Lost { rank: *rank, op, step, how: how.clone() });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(call.late(from));
            }
            state = self.hub.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(incoming)
    }
}

/// How a rank ended before its time.
#[derive(Debug)]
pub enum Failure<E> {
    /// With an error.
    Error(E),
    /// With a panic, which says this.
    Panic(String),
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => write!(out, "it ended with `{error}`"),
            Self::Panic(text) => write!(out, "it panicked: {text}"),
        }
    }
}

/// The first failure of a run: which rank, and its last call.
#[derive(Debug)]
pub(super) struct First<E> {
    pub(super) rank: usize,
    pub(super) op: &'static str,
    pub(super) step: u64,
    pub(super) failure: Failure<E>,
}

/// Runs `body` as `size` ranks, each with its part of the current pool's threads, and returns what rank 0 gives.
///
/// When a rank fails the others end at their next call. If one does not, `abandon` is called with the failure, and
/// must end the process: a thread cannot be ended from outside. Of an error that all ranks have in common, rank 0's is
/// returned.
pub(super) fn run<T: Send, E: Send + fmt::Display>(
    size: usize,
    body: impl Fn(&dyn Collective) -> Result<T, E> + Sync,
    is_common: impl Fn(&E) -> bool,
    abandon: impl FnOnce(First<E>) -> Infallible,
) -> Result<T, First<E>> {
    let hub = Hub::new(size);
    let threads = rayon::current_num_threads();
    std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        for rank in 0..size {
            let (sender, hub, body) = (sender.clone(), &hub, &body);
            let share = ((rank + 1) * threads / size - rank * threads / size).max(1);
            scope.spawn(move || {
                let made = catch_unwind(AssertUnwindSafe(|| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(share).stack_size(STACK_BYTES);
                    let pool = pool.thread_name(move |thread| format!("rank-{rank}-{thread}"));
                    let pool = pool.build().expect("the system gives threads");
                    pool.install(|| body(&Thread { rank, size, hub }))
                }));
                let outcome = match made {
                    Ok(result) => result.map_err(Failure::Error),
                    Err(panic) => Err(Failure::Panic(said(panic.as_ref()))),
                };
                if let Err(failure) = &outcome {
                    hub.fail(rank, failure.to_string());
                }
                // The receiver lives until all ranks are back.
                let _ = sender.send((rank, outcome));
            });
        }
        let mut outcomes: Vec<Option<Result<T, Failure<E>>>> = (0..size).map(|_| None).collect();
        let mut deadline: Option<Instant> = None;
        while outcomes.iter().any(Option::is_none) {
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            match receiver.recv_timeout(left) {
                Ok((rank, outcome)) => {
                    if outcome.is_err() {
                        deadline.get_or_insert(Instant::now() + GRACE);
                    }
                    outcomes[rank] = Some(outcome);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let first = first(&hub, &mut outcomes).expect("a failure set the deadline");
                    match abandon(first) {}
                }
                Err(RecvTimeoutError::Disconnected) => unreachable!("this thread holds a sender"),
            }
        }
        let Some(first) = first(&hub, &mut outcomes) else {
            let leader = outcomes.swap_remove(0).and_then(Result::ok);
            return Ok(leader.expect("no rank failed"));
        };
        match (&first.failure, outcomes.swap_remove(0)) {
            (Failure::Error(error), Some(Err(failure))) if is_common(error) => {
                Err(First { rank: 0, failure, ..first })
            }
            _ => Err(first),
        }
    })
}

/// Takes the failure of the rank that failed first.
fn first<T, E>(hub: &Hub, outcomes: &mut [Option<Result<T, Failure<E>>>]) -> Option<First<E>> {
    let state = hub.lock();
    let rank = state.failed.as_ref()?.0;
    let (op, step) = state.calls[rank];
    // A rank sends its outcome after it is known to have failed.
    let failure = outcomes[rank].take()?.err()?;
    Some(First { rank, op, step, failure })
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::Exit;
    use crate::parallel::Processes;

    /// Threads that pass for processes: to end all is to panic.
    pub(in crate::parallel) fn as_processes(size: usize) -> Vec<Box<dyn Processes + Send>> {
        let hub: &'static Hub = Box::leak(Box::new(Hub::new(size)));
        (0..size).map(|rank| Box::new(Thread { rank, size, hub }) as Box<dyn Processes + Send>).collect()
    }

    impl Processes for Thread<'_> {
        fn end_all(&self, exit: Exit) -> ! {
            panic!("rank {} ends all with {}", self.rank, exit.code())
        }
    }
}
