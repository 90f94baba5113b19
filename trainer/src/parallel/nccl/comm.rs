//! NCCL's communicator, in its mode that does not block: every call can be given up.

use std::cell::Cell;
use std::ffi::c_int;
use std::thread;
use std::time::{Duration, Instant};

use cudarc::nccl::sys::{ncclComm_t, ncclConfig_t, ncclUniqueId};

use super::NcclError;
use super::device::Gpu;
use super::library::{BYTES, FLOAT32, IN_PROGRESS, Library, SUCCESS, SUM};

/// `NCCL_API_MAGIC`, and the version whose configuration this is, as `nccl.h` has them.
const MAGIC: u32 = 0xcafe_beef;
const CONFIG_VERSION: u32 = 21800;
/// `NCCL_CONFIG_UNDEF_INT`
const UNSET: c_int = c_int::MIN;
const PAUSE: Duration = Duration::from_micros(50);

/// A world of ranks.
#[derive(Debug)]
pub(super) struct Comm {
    library: Library,
    raw: ncclComm_t,
    is_aborted: Cell<bool>,
}

/// One message of a group.
pub(super) enum Part {
    /// Of so many bytes from a place of the outgoing buffer to a rank.
    Send { to: usize, at: usize, bytes: usize },
    /// Of so many bytes from a rank to a place of the incoming buffer.
    Receive { from: usize, at: usize, bytes: usize },
}

impl Comm {
    /// Joins a world; all its ranks must, on a GPU of their own that is the current one of this thread.
    ///
    /// # Errors
    /// [`NcclError::Call`], [`NcclError::Late`].
    pub(super) fn join(
        library: Library,
        id: ncclUniqueId,
        rank: usize,
        ranks: usize,
        patience: Duration,
    ) -> Result<Comm, NcclError> {
        const WHAT: &str = "ncclCommInitRankConfig";
        let mut config = ncclConfig_t {
            size: size_of::<ncclConfig_t>(),
            magic: MAGIC,
            version: CONFIG_VERSION,
            blocking: 0,
            cgaClusterSize: UNSET,
            minCTAs: UNSET,
            maxCTAs: UNSET,
            netName: std::ptr::null(),
            splitShare: UNSET,
        };
        let mut raw: ncclComm_t = std::ptr::null_mut();
        #[expect(unsafe_code, reason = "a call of C")]
        // SAFETY: the communicator and the configuration are there to be written and read; NCCL copies the latter.
        let result =
            unsafe { (library.comm_init)(&raw mut raw, ranks as c_int, id, rank as c_int, &raw mut config) };
        if raw.is_null() {
            library.check(WHAT, result)?;
        }
        let comm = Comm { library, raw, is_aborted: Cell::new(false) };
        // What was not finished is not to be waited for.
        comm.settle(WHAT, result, Instant::now() + patience, patience).inspect_err(|_| comm.abort())?;
        Ok(comm)
    }

    /// Queues messages that all travel at once.
    pub(super) fn group(
        &self,
        gpu: &Gpu,
        parts: &[Part],
        deadline: Instant,
        patience: Duration,
    ) -> Result<(), NcclError> {
        #[expect(unsafe_code, reason = "a call of C")]
        // SAFETY: it takes nothing; `end` below follows on every path.
        let started = unsafe { (self.library.group_start)() };
        self.library.check("ncclGroupStart", started)?;
        let mut queued = Ok(());
        for part in parts {
            queued = queued.and_then(|()| self.queue(gpu, part));
        }
        #[expect(unsafe_code, reason = "a call of C")]
        // SAFETY: a group was started; the buffers stay until the process ends.
        let ended = unsafe { (self.library.group_end)() };
        queued?;
        self.settle("ncclGroupEnd", ended, deadline, patience)
    }

    fn queue(&self, gpu: &Gpu, part: &Part) -> Result<(), NcclError> {
        let Library { send, receive, .. } = self.library;
        let (what, result) = match *part {
            Part::Send { to, at, bytes } => {
                let from = gpu.outgoing(at, bytes);
                #[expect(unsafe_code, reason = "a call of C")]
                // SAFETY: the range lies in a buffer of the GPU, the stream and the communicator live.
                let result = unsafe { send(from, bytes, BYTES, to as c_int, self.raw, gpu.stream) };
                ("ncclSend", result)
            }
            Part::Receive { from, at, bytes } => {
                let to = gpu.incoming(at, bytes);
                #[expect(unsafe_code, reason = "a call of C")]
                // SAFETY: as above.
                let result = unsafe { receive(to, bytes, BYTES, from as c_int, self.raw, gpu.stream) };
                ("ncclRecv", result)
            }
        };
        // Within a group nothing has happened yet.
        if result == IN_PROGRESS { Ok(()) } else { self.library.check(what, result) }
    }

    /// Queues the sum over all ranks of `count` numbers at the start of the buffers, in whatever order NCCL adds.
    pub(super) fn all_reduce(
        &self,
        gpu: &Gpu,
        count: usize,
        deadline: Instant,
        patience: Duration,
    ) -> Result<(), NcclError> {
        let bytes = count * size_of::<f32>();
        let (from, to) = (gpu.outgoing(0, bytes), gpu.incoming(0, bytes));
        #[expect(unsafe_code, reason = "a call of C")]
        // SAFETY: both ranges lie in buffers of the GPU, the stream and the communicator live.
        let result =
            unsafe { (self.library.all_reduce)(from, to, count, FLOAT32, SUM, self.raw, gpu.stream) };
        self.settle("ncclAllReduce", result, deadline, patience)
    }

    /// Returns what went wrong since the last call, as NCCL sees it.
    pub(super) fn trouble(&self) -> Result<(), NcclError> {
        match self.state()? {
            SUCCESS | IN_PROGRESS => Ok(()),
            error => self.library.check("NCCL's transport", error),
        }
    }

    /// Gives everything up that is under way.
    pub(super) fn abort(&self) {
        if !self.is_aborted.replace(true) && !self.raw.is_null() {
            #[expect(unsafe_code, reason = "a call of C")]
            // SAFETY: the communicator was made and is freed once.
            let _ = unsafe { (self.library.comm_abort)(self.raw) };
        }
    }

    fn state(&self) -> Result<c_int, NcclError> {
        let mut state = SUCCESS;
        #[expect(unsafe_code, reason = "a call of C")]
        // SAFETY: the communicator lives; the call fills the number.
        let result = unsafe { (self.library.comm_async_error)(self.raw, &raw mut state) };
        self.library.check("ncclCommGetAsyncError", result)?;
        Ok(state)
    }

    /// Waits until a call that does not block is done.
    fn settle(
        &self,
        what: &'static str,
        result: c_int,
        deadline: Instant,
        patience: Duration,
    ) -> Result<(), NcclError> {
        let mut state = result;
        while state == IN_PROGRESS {
            if Instant::now() >= deadline {
                return Err(NcclError::Late { what, seconds: patience.as_secs() });
            }
            thread::sleep(PAUSE);
            state = self.state()?;
        }
        self.library.check(what, state)
    }
}

impl Drop for Comm {
    fn drop(&mut self) {
        if !self.is_aborted.replace(true) && !self.raw.is_null() {
            #[expect(unsafe_code, reason = "a call of C")]
            // SAFETY: the communicator was made and is freed once; nothing is under way.
            let _ = unsafe { (self.library.comm_destroy)(self.raw) };
        }
    }
}
