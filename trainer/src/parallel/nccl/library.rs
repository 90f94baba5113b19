//! NCCL's library, looked for at run time, and the calls that are used of it.

use std::error::Error;
use std::ffi::{CStr, c_char, c_int, c_void};

use cudarc::driver::sys::CUstream;
use cudarc::nccl::sys::{ncclComm_t, ncclConfig_t, ncclUniqueId};
use libloading::Library as Loaded;

use super::NcclError;

/// The variable that names the library.
pub(super) const PATH: &str = "SEEDCORN_NCCL";
/// What it is called: by its interface, as packages for use have it, or without, as packages for building do.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// Results as numbers: a newer library may know some that we do not.
pub(super) const SUCCESS: c_int = 0;
pub(super) const IN_PROGRESS: c_int = 7;
/// Data types and the operation, as `nccl.h` numbers them.
pub(super) const BYTES: c_int = 1;
pub(super) const FLOAT32: c_int = 7;
pub(super) const SUM: c_int = 0;

/// The calls.
#[derive(Clone, Copy)]
pub(super) struct Library {
    pub(super) comm_init:
        unsafe extern "C" fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int, *mut ncclConfig_t) -> c_int,
    pub(super) comm_async_error: unsafe extern "C" fn(ncclComm_t, *mut c_int) -> c_int,
    pub(super) comm_abort: unsafe extern "C" fn(ncclComm_t) -> c_int,
    pub(super) comm_destroy: unsafe extern "C" fn(ncclComm_t) -> c_int,
    pub(super) group_start: unsafe extern "C" fn() -> c_int,
    pub(super) group_end: unsafe extern "C" fn() -> c_int,
    pub(super) send: unsafe extern "C" fn(*const c_void, usize, c_int, c_int, ncclComm_t, CUstream) -> c_int,
    pub(super) receive: unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, ncclComm_t, CUstream) -> c_int,
    pub(super) all_reduce:
        unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, ncclComm_t, CUstream) -> c_int,
    get_version: unsafe extern "C" fn(*mut c_int) -> c_int,
    get_unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    last_error: unsafe extern "C" fn(ncclComm_t) -> *const c_char,
}

impl Library {
    /// Looks for the library: only where `SEEDCORN_NCCL` points if it is set, else under its names where the system looks.
    ///
    /// # Errors
    /// [`NcclError::NoLibrary`], [`NcclError::NoFunction`].
    pub(super) fn open() -> Result<Library, NcclError> {
        let chosen = std::env::var(PATH).ok().filter(|path| !path.is_empty());
        let names = chosen.map_or_else(|| NAMES.map(str::to_owned).to_vec(), |path| vec![path]);
        let mut tried = Vec::new();
        for name in names {
            #[expect(unsafe_code, reason = "a library runs code when it is loaded")]
            // SAFETY: it is NCCL by its name or by the user's word, whose initialisers ask nothing of the caller.
            match unsafe { Loaded::new(&name) } {
                Ok(loaded) => return Library::of(loaded, name),
                Err(error) => {
                    let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                    // The system's words begin with the name most of the time.
                    tried.push(if why.starts_with(&name) { why } else { format!("{name}: {why}") });
                }
            }
        }
        Err(NcclError::NoLibrary { tried })
    }

    fn of(loaded: Loaded, path: String) -> Result<Library, NcclError> {
        // NCCL has threads of its own: it stays until the process ends.
        let loaded: &'static Loaded = Box::leak(Box::new(loaded));
        let of = Functions { loaded, path };
        Ok(Library {
            comm_init: of.get(c"ncclCommInitRankConfig")?,
            comm_async_error: of.get(c"ncclCommGetAsyncError")?,
            comm_abort: of.get(c"ncclCommAbort")?,
            comm_destroy: of.get(c"ncclCommDestroy")?,
            group_start: of.get(c"ncclGroupStart")?,
            group_end: of.get(c"ncclGroupEnd")?,
            send: of.get(c"ncclSend")?,
            receive: of.get(c"ncclRecv")?,
            all_reduce: of.get(c"ncclAllReduce")?,
            get_version: of.get(c"ncclGetVersion")?,
            get_unique_id: of.get(c"ncclGetUniqueId")?,
            error_string: of.get(c"ncclGetErrorString")?,
            last_error: of.get(c"ncclGetLastError")?,
        })
    }

    /// Returns the version, like `2.32.3`.
    pub(super) fn version(&self) -> Result<String, NcclError> {
        let mut code: c_int = 0;
        #[expect(unsafe_code, reason = "a call of C")]
        // SAFETY: the call fills the number it is given.
        let result = unsafe { (self.get_version)(&raw mut code) };
        self.check("ncclGetVersion", result)?;
        Ok(format!("{}.{}.{}", code / 10000, code / 100 % 100, code % 100))
    }

    /// Makes the token of a new world. It opens a socket that waits for the other ranks.
    pub(super) fn unique_id(&self) -> Result<ncclUniqueId, NcclError> {
        let mut id = ncclUniqueId { internal: [0; 128] };
        #[expect(unsafe_code, reason = "a call of C")]
        // SAFETY: the call fills the 128 bytes it is given.
        let result = unsafe { (self.get_unique_id)(&raw mut id) };
        self.check("ncclGetUniqueId", result)?;
        Ok(id)
    }

    /// Turns a result into an error with what NCCL says of it.
    pub(super) fn check(&self, what: &'static str, result: c_int) -> Result<(), NcclError> {
        if result == SUCCESS {
            return Ok(());
        }
        #[expect(unsafe_code, reason = "calls of C")]
        // SAFETY: both take any number, or no communicator, and return null or a text that stays.
        let (error, last) = unsafe { ((self.error_string)(result), (self.last_error)(std::ptr::null_mut())) };
        let said: Vec<String> = [error, last].into_iter().filter_map(text).collect();
        Err(NcclError::Call { what, said: said.join("; ") })
    }
}

fn text(pointer: *const c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    #[expect(unsafe_code, reason = "a text of C")]
    // SAFETY: NCCL's texts end with a zero byte; they are copied before another call could change them.
    let text = unsafe { CStr::from_ptr(pointer) }.to_string_lossy();
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

struct Functions {
    loaded: &'static Loaded,
    path: String,
}

impl Functions {
    /// Looks a function up. The type is that of the field it goes to, as `nccl.h` declares it.
    fn get<F: Copy>(&self, name: &'static CStr) -> Result<F, NcclError> {
        #[expect(unsafe_code, reason = "a name says nothing of the type")]
        // SAFETY: each name is looked up for one field of `Library`, whose type is the declaration of `nccl.h` since 2.18;
        // the library is never unloaded.
        let found = unsafe { self.loaded.get::<F>(name) };
        let name = name.to_str().unwrap_or_default();
        found.map(|found| *found).map_err(|_| NcclError::NoFunction { path: self.path.clone(), name })
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("NCCL")
    }
}
