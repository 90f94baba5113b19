//! A device that runs the compiled kernels in the interpreter.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use seedcorn_kernels::cuda_source::{Device, Kernel, Launch, Source};
use seedcorn_ptx::{Argument, Buffer, Fault, Grid, Memory, Module};

use crate::toolkit;

/// A change of a kernel's CUDA C++.
pub(crate) type Mutation<'a> = dyn Fn(Kernel, &str) -> String + 'a;

/// Runs kernels one after the other.
pub(crate) struct Interpreter<'a> {
    toolkit: &'a Path,
    memory: Memory,
    multiprocessors: usize,
    mutation: Option<&'a Mutation<'a>>,
    /// Instructions that were executed, by opcode.
    pub(crate) executed: BTreeMap<String, u64>,
    /// Blocks that were run.
    pub(crate) launches: usize,
}

/// What was compiled before: several tests use a kernel, and compiling one takes longer than running it.
static SOURCES: Mutex<Option<HashMap<Kernel, Arc<Source>>>> = Mutex::new(None);
static MODULES: Mutex<Option<HashMap<String, Arc<Module>>>> = Mutex::new(None);

/// Looks a value up, or makes it without holding the lock.
fn cached<K: Clone + Eq + Hash, V>(
    cache: &Mutex<Option<HashMap<K, Arc<V>>>>,
    key: &K,
    make: impl FnOnce() -> V,
) -> Arc<V> {
    let lock = || cache.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(value) = lock().get_or_insert_with(HashMap::new).get(key) {
        return value.clone();
    }
    let value = Arc::new(make());
    lock().get_or_insert_with(HashMap::new).insert(key.clone(), value.clone());
    value
}

impl<'a> Interpreter<'a> {
    /// With so many multiprocessors: one of them makes for the largest tiles.
    pub(crate) fn new(toolkit: &'a Path, multiprocessors: usize) -> Self {
        let (memory, executed) = (Memory::new(), BTreeMap::new());
        Self { toolkit, memory, multiprocessors, mutation: None, executed, launches: 0 }
    }

    /// Changes every kernel before it is compiled.
    pub(crate) fn mutated(self, mutation: &'a Mutation<'a>) -> Self {
        Self { mutation: Some(mutation), ..self }
    }

    pub(crate) fn upload_floats(&mut self, values: &[f32]) -> Buffer {
        self.memory.upload(bytes(values))
    }

    /// The values of a buffer, all of which must have been written.
    pub(crate) fn floats(&self, buffer: Buffer) -> Result<Vec<f32>, String> {
        let bytes = self.memory.read(buffer).map_err(|problem| problem.to_string())?;
        Ok(bytes
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect())
    }
}

fn bytes(values: &[f32]) -> &[u8] {
    bytemuck::cast_slice(values)
}

impl Device for Interpreter<'_> {
    type Buffer = Buffer;
    type Error = Fault;

    fn upload(&mut self, bytes: &[u8]) -> Buffer {
        self.memory.upload(bytes)
    }

    fn reserve(&mut self, bytes: usize) -> Buffer {
        self.memory.reserve(bytes)
    }

    fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    fn launch(&mut self, launch: &Launch<Buffer>) -> Result<(), Fault> {
        let source = cached(&SOURCES, &launch.kernel, || launch.kernel.source());
        let Source { text, entry, units, shared_bytes, .. } = &*source;
        let text = self.mutation.map_or_else(|| text.clone(), |mutation| mutation(launch.kernel, text));
        let module = cached(&MODULES, &text, || {
            Module::parse(&toolkit::compile(self.toolkit, &text)).expect("PTX that is modelled")
        });
        let info = self.memory.upload(&source.info(launch.floats, launch.words));
        let arguments: Vec<Argument> = launch
            .buffers
            .iter()
            .map(|buffer| Argument::Buffer(**buffer))
            .chain([Argument::Buffer(info)])
            .collect();
        let threads = [*units as u32, 1, 1];
        let grid = Grid { blocks: launch.cubes, threads, dynamic_shared_bytes: *shared_bytes };
        let report = module.launch(entry, grid, &arguments, &mut self.memory)?;
        for (kind, count) in report.executed {
            *self.executed.entry(kind).or_default() += count;
        }
        self.launches += 1;
        Ok(())
    }
}
