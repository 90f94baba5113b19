//! The GPU that a rank's messages pass through: a stream, and a staging buffer each way.

use std::ffi::c_void;
use std::thread;
use std::time::{Duration, Instant};

use cudarc::driver::result::{self, DriverError, stream::StreamKind};
use cudarc::driver::sys::{self, CUdeviceptr, CUresult, CUstream};

use super::NcclError;

/// Bytes of the staging buffer of each direction.
pub(super) const STAGE: usize = 32 << 20;
/// Polls without a pause.
const BUSY: Duration = Duration::from_millis(100);
/// Between two polls later on.
const PAUSE: Duration = Duration::from_micros(100);

/// A GPU with what messages need of it. It stays until the process ends: NCCL may still hold it.
#[derive(Debug)]
pub(super) struct Gpu {
    /// What messages and NCCL's calls are queued on.
    pub(super) stream: CUstream,
    /// For a look at what has come while the other one waits.
    aside: CUstream,
    outgoing: CUdeviceptr,
    incoming: CUdeviceptr,
}

fn failed(what: &'static str) -> impl Fn(DriverError) -> NcclError {
    move |error| NcclError::Driver { what, said: error.to_string() }
}

/// Returns how many GPUs this process sees.
///
/// # Errors
/// [`NcclError::NoDriver`], [`NcclError::Driver`].
pub(super) fn count() -> Result<usize, NcclError> {
    #[expect(unsafe_code, reason = "a library runs code when it is loaded")]
    // SAFETY: it is looked for under the names of the CUDA driver only.
    if !unsafe { sys::is_culib_present() } {
        return Err(NcclError::NoDriver);
    }
    result::init().map_err(failed("`cuInit`"))?;
    Ok(result::device::get_count().map_err(failed("`cuDeviceGetCount`"))? as usize)
}

impl Gpu {
    /// Opens the GPU of a rank: the one with its number on this machine, or the only one that the launcher lets it see. It is
    /// the current one of this thread from now on.
    ///
    /// # Errors
    /// [`NcclError::NoDriver`], [`NcclError::NoGpu`], [`NcclError::Driver`].
    pub(super) fn open(local_rank: usize) -> Result<Gpu, NcclError> {
        let count = count()?;
        let wanted = if count == 1 { 0 } else { local_rank };
        if wanted >= count {
            return Err(NcclError::NoGpu { wanted, count });
        }
        let device = result::device::get(wanted as i32).map_err(failed("`cuDeviceGet`"))?;
        #[expect(unsafe_code, reason = "calls of the driver")]
        // SAFETY: the device exists; its primary context is never released; the buffers are never freed.
        unsafe {
            let context =
                result::primary_ctx::retain(device).map_err(failed("`cuDevicePrimaryCtxRetain`"))?;
            result::ctx::set_current(context).map_err(failed("`cuCtxSetCurrent`"))?;
            let stream =
                || result::stream::create(StreamKind::NonBlocking).map_err(failed("`cuStreamCreate`"));
            let buffer = || result::malloc_sync(STAGE).map_err(failed("`cuMemAlloc`"));
            Ok(Gpu { stream: stream()?, aside: stream()?, outgoing: buffer()?, incoming: buffer()? })
        }
    }

    /// Returns where NCCL is to read `bytes` that are sent.
    pub(super) fn outgoing(&self, at: usize, bytes: usize) -> *const c_void {
        place(self.outgoing, at, bytes) as *const c_void
    }

    /// Returns where NCCL is to write `bytes` that come.
    pub(super) fn incoming(&self, at: usize, bytes: usize) -> *mut c_void {
        place(self.incoming, at, bytes) as *mut c_void
    }

    /// Queues a copy to the buffer of what is sent. `content` must stay until the stream is idle.
    pub(super) fn upload(&self, at: usize, content: &[u8]) -> Result<(), NcclError> {
        self.copy_up(self.outgoing, at, content)
    }

    /// Queues the filling of a part of the buffer of what comes with zeros.
    pub(super) fn clear(&self, bytes: usize) -> Result<(), NcclError> {
        place(self.incoming, 0, bytes);
        #[expect(unsafe_code, reason = "a call of the driver")]
        // SAFETY: the range lies in the buffer, which is used on this stream only.
        let done = unsafe { result::memset_d8_async(self.incoming, 0, bytes, self.stream) };
        done.map_err(failed("`cuMemsetD8Async`"))
    }

    /// Copies what has come, once the stream is idle.
    pub(super) fn download(&self, at: usize, content: &mut [u8]) -> Result<(), NcclError> {
        self.copy_down(at, content, self.stream)
    }

    /// Copies what has come so far, while the stream is still waiting for more.
    pub(super) fn peek(&self, content: &mut [u8]) -> Result<(), NcclError> {
        self.copy_down(0, content, self.aside)
    }

    /// Waits until all that was queued is done, as long as `check` finds nothing wrong. Returns whether it is.
    pub(super) fn wait(
        &self,
        deadline: Instant,
        check: impl Fn() -> Result<(), NcclError>,
    ) -> Result<bool, NcclError> {
        let started = Instant::now();
        loop {
            #[expect(unsafe_code, reason = "a call of the driver")]
            // SAFETY: the stream lives until the process ends.
            match unsafe { sys::cuStreamQuery(self.stream) } {
                CUresult::CUDA_SUCCESS => return Ok(true),
                CUresult::CUDA_ERROR_NOT_READY => {}
                other => return Err(failed("`cuStreamQuery`")(DriverError(other))),
            }
            check()?;
            let now = Instant::now();
            if now >= deadline {
                return Ok(false);
            }
            if now - started < BUSY { thread::yield_now() } else { thread::sleep(PAUSE) }
        }
    }

    fn copy_up(&self, buffer: CUdeviceptr, at: usize, content: &[u8]) -> Result<(), NcclError> {
        let to = place(buffer, at, content.len());
        #[expect(unsafe_code, reason = "a call of the driver")]
        // SAFETY: the range lies in the buffer; memory that is not pinned is read before the call returns, or the caller keeps it.
        let done = unsafe { result::memcpy_htod_async(to, content, self.stream) };
        done.map_err(failed("`cuMemcpyHtoDAsync`"))
    }

    fn copy_down(&self, at: usize, content: &mut [u8], stream: CUstream) -> Result<(), NcclError> {
        let from = place(self.incoming, at, content.len());
        #[expect(unsafe_code, reason = "calls of the driver")]
        // SAFETY: the range lies in the buffer, and `content` is borrowed until the copy is done.
        unsafe {
            result::memcpy_dtoh_async(content, from, stream).map_err(failed("`cuMemcpyDtoHAsync`"))?;
            result::stream::synchronize(stream).map_err(failed("`cuStreamSynchronize`"))
        }
    }
}

/// Returns the address of a range of a staging buffer.
fn place(buffer: CUdeviceptr, at: usize, bytes: usize) -> CUdeviceptr {
    assert!(at + bytes <= STAGE, "{bytes} bytes at {at} are beyond the staging buffer");
    buffer + at as CUdeviceptr
}
