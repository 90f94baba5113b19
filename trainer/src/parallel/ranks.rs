//! What the training loop asks of the ranks of a run.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Bytes, Call, Collective, Gathering, Mesh, ParallelError, Single, SumOverRanks};
use crate::recipe::Reduction;

/// A rank waits for the slowest so many times as long as it has itself computed between two calls, on top of the
/// timeout: shares differ, and machines do.
const SLOWER: u32 = 4;
/// How long ranks wait where they do different things on purpose: reading weights, answering, exporting.
const LONG: Duration = Duration::from_hours(24);

/// The call that adds up what was computed.
pub(super) const GRADIENTS: &str = "gradients";
/// The call for weights that are about to be used.
pub(crate) const WEIGHTS: &str = "weights";
/// The calls for the rows of tokens.
pub(crate) const EMBEDDING: &str = "embedding";

/// The ranks of a run, seen from one of them.
#[derive(Debug)]
pub struct Ranks<'a> {
    collective: &'a dyn Collective,
    mesh: Mesh,
    /// The ranks with the same slices as this one, each with its own share of the data.
    data_group: Vec<usize>,
    /// The ranks with the same share of the data as this one, each with its own slices.
    tensor_group: Vec<usize>,
    timeout: Duration,
    pace: Cell<Pace>,
    traffic: Cell<Exchanged>,
}

/// What this rank has sent to others, and how long its calls took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Exchanged {
    /// Bytes of gradients.
    pub gradient_bytes: u64,
    /// Time in which gradients were exchanged and added. All ranks are there when it begins.
    pub gradient_time: Duration,
    /// Bytes of frozen weights.
    pub weight_bytes: u64,
    /// Time in which this rank has waited for frozen weights.
    pub weight_time: Duration,
    /// Time of all other calls, most of it waiting for slower ranks.
    pub other_time: Duration,
}

/// How this rank moves from call to call. Calls within a tensor group are a part of computing: they do not count.
#[derive(Clone, Copy, Debug)]
struct Pace {
    last_call: Instant,
    longest: Duration,
    op: &'static str,
    step: u64,
}

impl Exchanged {
    /// Describes it in a line.
    pub fn line(&self) -> String {
        let weights = match self.weight_bytes {
            0 => String::new(),
            bytes => format!(
                " and {:.1} MB of weights; waiting for those of others took {:.2} s",
                bytes as f64 / 1e6,
                self.weight_time.as_secs_f64()
            ),
        };
        format!(
            "rank 0 sent {:.1} MB of gradients{weights}; exchanging gradients took {:.2} s, other calls and waiting \
             {:.2} s",
            self.gradient_bytes as f64 / 1e6,
            self.gradient_time.as_secs_f64(),
            self.other_time.as_secs_f64()
        )
    }
}

impl Ranks<'static> {
    /// The one rank of a run that is not shared out.
    pub fn alone() -> Self {
        Ranks::new(&Single, Mesh::of_data(1), Duration::ZERO)
    }
}

impl<'a> Ranks<'a> {
    /// Takes an engine; `timeout` is how much longer than expected a rank may take.
    ///
    /// # Panics
    /// When the engine has another number of ranks than the mesh.
    pub fn new(collective: &'a dyn Collective, mesh: Mesh, timeout: Duration) -> Self {
        let rank = collective.rank();
        assert_eq!(collective.size(), mesh.ranks(), "the engine has the ranks of the mesh");
        let pace = Pace { last_call: Instant::now(), longest: Duration::ZERO, op: "start", step: 0 };
        Self {
            collective,
            mesh,
            data_group: mesh.data_group(rank),
            tensor_group: mesh.tensor_group(rank),
            timeout,
            pace: Cell::new(pace),
            traffic: Cell::default(),
        }
    }

    /// Returns which rank this is.
    pub fn rank(&self) -> usize {
        self.collective.rank()
    }

    /// Returns the number of ranks.
    pub fn size(&self) -> usize {
        self.mesh.ranks()
    }

    /// Whether this rank writes files and talks.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Returns how the ranks are laid out.
    pub fn mesh(&self) -> Mesh {
        self.mesh
    }

    /// Returns which share of the micro-batches is this rank's.
    pub fn data_index(&self) -> usize {
        self.mesh.data_index(self.rank())
    }

    /// Returns which of `items` this rank computes.
    pub fn share(&self, items: usize) -> Range<usize> {
        self.mesh.share(self.data_index(), items)
    }

    /// Returns what was sent so far.
    pub fn traffic(&self) -> Exchanged {
        self.traffic.get()
    }

    /// Starts the sum of a step over `items` micro-batches, of which this rank computes its share.
    pub fn sum(&self, step: u64, items: usize, reduction: Reduction) -> SumOverRanks<'_> {
        SumOverRanks::new(self, step, items, reduction)
    }

    /// Puts together what every rank has computed of `items` numbers, in their order.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn gather_numbers(
        &self,
        op: &'static str,
        step: u64,
        items: usize,
        own: &[f64],
    ) -> Result<Vec<f64>, ParallelError> {
        if self.mesh.data == 1 {
            return Ok(own.to_vec());
        }
        let all = self.gather_shares(op, step, bytemuck::cast_slice(own))?;
        for (index, message) in all.iter().enumerate() {
            let expected = self.mesh.share(index, items).len() * size_of::<f64>();
            expect_bytes(self.data_group[index], op, step, message.len(), expected)?;
        }
        Ok(all.iter().flat_map(|message| numbers(message)).collect())
    }

    /// Compares what all ranks must hold alike after a step; `digest` is not asked for on a single rank.
    ///
    /// # Errors
    /// [`ParallelError::Diverged`] with the first rank that differs from rank 0, on every rank.
    pub fn compare(&self, step: u64, digest: impl FnOnce() -> [u8; 32]) -> Result<(), ParallelError> {
        if self.size() == 1 {
            return Ok(());
        }
        let digest = digest();
        let all = self.calling("compare", step, None, |call| self.collective.all_gather(call, &digest))?;
        match all.iter().position(|one| *one != all[0]) {
            None => Ok(()),
            Some(rank) => Err(ParallelError::Diverged { rank, step }),
        }
    }

    /// Waits until every rank is here, however long that takes; a rank that dies still ends the wait.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn meet(&self, op: &'static str, step: u64) -> Result<(), ParallelError> {
        self.calling(op, step, Some(LONG), |call| self.collective.all_gather(call, &[])).map(|_| ())
    }

    /// Returns what rank 0 hands out, however long it takes to have it; `content` counts on rank 0 only.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub fn from_leader(&self, op: &'static str, content: &[u8]) -> Result<Vec<u8>, ParallelError> {
        let content = if self.leads() { content } else { &[] };
        let outgoing = vec![content; self.size()];
        let all = self.calling(op, 0, Some(LONG), |call| self.collective.exchange(call, &outgoing))?;
        Ok(all.into_iter().next().expect("rank 0 is there"))
    }

    /// Begins to gather the parts of weights that each rank keeps, whose lengths are known.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub(crate) fn start_gather(
        &self,
        op: &'static str,
        step: u64,
        own: Arc<[u8]>,
        lengths: Vec<usize>,
    ) -> Result<Gathering<'_>, ParallelError> {
        self.count(op, (own.len() * (lengths.len() - 1)) as u64);
        let members = self.data_group.clone();
        let pending =
            self.calling(op, step, None, |call| self.collective.start_gather(call, &members, own, &lengths))?;
        Ok(Gathering { op, step, members, lengths, pending })
    }

    /// Waits for what was begun first.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub(crate) fn finish_gather(&self, gathering: Gathering) -> Result<Vec<Bytes>, ParallelError> {
        self.calling(gathering.op, gathering.step, None, |call| gathering.wait(call))
    }

    /// Sends something to each rank with another share of the data: of gradients, or of the weights whose parts they keep.
    ///
    /// # Errors
    /// [`ParallelError`]
    pub(crate) fn exchange_shares(
        &self,
        op: &'static str,
        step: u64,
        outgoing: &[&[u8]],
    ) -> Result<Vec<Vec<u8>>, ParallelError> {
        let to_others = outgoing.iter().enumerate().filter(|(index, _)| *index != self.data_index());
        self.count(op, to_others.map(|(_, content)| content.len() as u64).sum());
        self.calling(op, step, None, |call| self.collective.exchange_among(call, &self.data_group, outgoing))
    }

    /// Returns the last call and its step.
    pub(super) fn last_call(&self) -> (&'static str, u64) {
        let Pace { op, step, .. } = self.pace.get();
        (op, step)
    }

    /// Puts together what every rank has, however long it takes to have it.
    pub(super) fn gather_slowly(&self, op: &'static str, own: &[u8]) -> Result<Vec<Vec<u8>>, ParallelError> {
        self.calling(op, 0, Some(LONG), |call| self.collective.all_gather(call, own))
    }

    /// Returns the rank that has a share of the data and the same slices as this one.
    pub(crate) fn rank_of_share(&self, data_index: usize) -> usize {
        self.data_group[data_index]
    }

    /// Returns the ranks with the same share of the data as this one.
    pub(super) fn tensor_group(&self) -> &[usize] {
        &self.tensor_group
    }

    /// Puts together what the ranks with other shares of the data have.
    pub(super) fn gather_shares(
        &self,
        op: &'static str,
        step: u64,
        own: &[u8],
    ) -> Result<Vec<Vec<u8>>, ParallelError> {
        self.calling(op, step, None, |call| self.collective.all_gather_among(call, &self.data_group, own))
    }

    /// Makes a call among the ranks that hold one model together, in the middle of its computation.
    pub(super) fn within_model<T>(
        &self,
        op: &'static str,
        step: u64,
        make: impl FnOnce(&dyn Collective, Call, &[usize]) -> Result<T, ParallelError>,
    ) -> Result<T, ParallelError> {
        let pace = self.pace.get();
        let result = self.calling(op, step, None, |call| make(self.collective, call, &self.tensor_group));
        // The ranks of other groups still see this stretch of computing as one.
        self.pace.set(Pace { op, step, ..pace });
        result
    }

    /// Adds up gradients of the ranks with other shares of the data, in the engine's own order. How much an engine sends for
    /// that is its own matter: counted is what a ring sends, and what the exchange of slices does.
    pub(super) fn add_up_gradients(&self, step: u64, values: &mut [f32]) -> Result<(), ParallelError> {
        let (all, own) = (values.len() as u64, self.share(values.len()).len() as u64);
        self.count(GRADIENTS, 4 * (all - own) + 4 * (self.mesh.data as u64 - 1) * own);
        let group = &self.data_group;
        self.calling(GRADIENTS, step, None, |call| self.collective.all_reduce_among(call, group, values))
    }

    /// Counts bytes that this rank sends.
    fn count(&self, op: &'static str, bytes: u64) {
        let mut traffic = self.traffic.get();
        *(if op == GRADIENTS { &mut traffic.gradient_bytes } else { &mut traffic.weight_bytes }) += bytes;
        self.traffic.set(traffic);
    }

    fn calling<T>(
        &self,
        op: &'static str,
        step: u64,
        patience: Option<Duration>,
        make: impl FnOnce(Call) -> Result<T, ParallelError>,
    ) -> Result<T, ParallelError> {
        let Pace { last_call, longest, .. } = self.pace.get();
        let longest = longest.max(last_call.elapsed());
        let patience = patience.unwrap_or(self.timeout + SLOWER * longest);
        let started = Instant::now();
        let result = make(Call { op, step, patience });
        let mut traffic = self.traffic.get();
        let time = match op {
            GRADIENTS => &mut traffic.gradient_time,
            WEIGHTS | EMBEDDING => &mut traffic.weight_time,
            _ => &mut traffic.other_time,
        };
        *time += started.elapsed();
        self.traffic.set(traffic);
        self.pace.set(Pace { last_call: Instant::now(), longest, op, step });
        result
    }
}

/// Reads numbers as [`bytemuck::cast_slice`] lays them out, wherever they stand in memory.
pub(super) fn numbers(bytes: &[u8]) -> impl Iterator<Item = f64> + '_ {
    let (numbers, _) = bytes.as_chunks::<8>();
    numbers.iter().map(|number| f64::from_ne_bytes(*number))
}

/// Checks the size of what a rank sent: another program or recipe there must not be taken for numbers.
pub(crate) fn expect_bytes(
    rank: usize,
    op: &'static str,
    step: u64,
    got: usize,
    expected: usize,
) -> Result<(), ParallelError> {
    if got == expected {
        return Ok(());
    }
    let (got, expected) = (format!("{got} bytes"), format!("{expected} bytes"));
    Err(ParallelError::OutOfStep { rank, op, step, got, expected })
}
