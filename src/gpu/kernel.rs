//! [`Kernel`], a shader described as data, and the cache of compiled pipelines.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::faults::{refused, scoped};
use super::hasher::Mixer;
use super::stack::on_compiler_stack;
use crate::{Error, Result};

/// Bytes of immediate data of this crate's largest kernel; every Vulkan device supports it.
pub(crate) const IMMEDIATE_BYTES: u32 = 128;
/// The most pipelines that a device caches. Training and inference of a model use some tens; software
/// adapters need some MiB for each.
const MAX_PIPELINES: usize = 512;
/// The most override constants of a kernel.
pub(super) const MAX_CONSTANTS: usize = 32;
/// The most storage bindings of a kernel: those of the persistent kernels.
pub(super) const MAX_BINDINGS: usize = 10;

/// How a shader accesses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    Write,
}

/// The origin of a shader, and the key by which its pipelines are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// This crate, which has one kernel of this name: release builds run it without run-time checks.
    Crate(&'static str),
    /// Partly the user: it has run-time checks in every build. The number is unique in the program, so that a kernel
    /// never runs a pipeline of another, not even of one that no longer exists.
    User(u64),
}

impl Origin {
    /// The origin of another kernel that is partly the user's.
    pub(crate) fn new_user() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::User(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn is_user(self) -> bool {
        matches!(self, Self::User(_))
    }
}

/// A compute shader: entry point `main`, parameters at binding 0, storage bindings from 1 on.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The stem of its file under `shaders/`.
    pub(crate) name: Cow<'static, str>,
    /// The WGSL of all its files.
    pub(crate) source: Cow<'static, str>,
    pub(crate) origin: Origin,
    /// The `override` constants, in the order in which a dispatch passes their values, with the number of
    /// values of each. Each combination compiles a pipeline: a constant with many values, such as a real
    /// number, should be a parameter.
    pub(crate) constants: &'static [(&'static str, u32)],
    /// The storage bindings, from binding 1 on.
    pub(crate) bindings: &'static [Access],
    /// The members of the parameter struct in WGSL, as [`parameters`] emits them.
    pub(crate) members: &'static str,
    /// The size of the parameter struct in bytes.
    pub(crate) parameter_bytes: usize,
}

impl Kernel {
    /// Checks, at compile time of this crate, that the kernel fits the keys of the caches.
    pub(crate) const fn checked(self) -> Self {
        assert!(self.constants.len() <= MAX_CONSTANTS && self.bindings.len() <= MAX_BINDINGS);
        self
    }

    /// The complete text that a device compiles: the shader's files, and the parameters in the address space
    /// that the device supports.
    pub(crate) fn wgsl(&self, immediates: bool) -> String {
        let variable = if immediates { "var<immediate>" } else { "@group(0) @binding(0) var<uniform>" };
        let Self { source, members, .. } = self;
        format!("{source}\nstruct Parameters {{\n{members}}}\n{variable} parameters: Parameters;\n")
    }

    /// The error of a kernel that the driver refuses.
    fn refused(&self, error: &wgpu::Error) -> Error {
        match self.origin {
            Origin::User(_) if !matches!(error, wgpu::Error::OutOfMemory { .. }) => {
                Error::Shader { what: format!("the kernel `{}`", self.name), message: error.to_string() }
            }
            _ => refused(&format!("the kernel `{}`", self.name), error),
        }
    }
}

/// Declares the parameters of a kernel once: the `#[repr(C)]` struct in Rust, and the members of the WGSL
/// struct that the shader reads as `parameters`. All members have four bytes, so that both have the same
/// layout.
macro_rules! parameters {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $kind:ident),* $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        pub(crate) struct $name {
            $($(#[$doc])* pub(crate) $field: $kind,)*
        }

        impl $name {
            /// The members in WGSL, one per line.
            pub(crate) const MEMBERS: &'static str =
                concat!($("    ", stringify!($field), ": ", stringify!($kind), ",\n"),*);
        }

        const _: () = assert!(size_of::<$name>() <= $crate::gpu::IMMEDIATE_BYTES as usize);
    };
}
pub(crate) use parameters;

/// Declares a [`Kernel`]: its name, optionally the cell it is assembled with, its files under `shaders/`, its
/// parameters, the override constants with the number of values of each, and its bindings.
macro_rules! kernel {
    ($name:ident: $stem:literal $(of $cell:ident)? {
        files: [$($file:literal),+],
        parameters: $parameters:ident,
        constants: [$(($constant:literal, $values:expr)),*],
        bindings: [$($access:ident),+] $(,)?
    }) => {
        static $name: $crate::gpu::Kernel = $crate::gpu::Kernel {
            name: std::borrow::Cow::Borrowed(concat!($stem $(, ".", stringify!($cell))?)),
            source: std::borrow::Cow::Borrowed(concat!(
                $(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file, ".wgsl"))),+
            )),
            origin: $crate::gpu::Origin::Crate(concat!($stem $(, ".", stringify!($cell))?)),
            constants: &[$(($constant, $values)),*],
            bindings: &[$($crate::gpu::Access::$access),+],
            members: $parameters::MEMBERS,
            parameter_bytes: size_of::<$parameters>(),
        }
        .checked();
    };
}
pub(crate) use kernel;

/// Declares the kernels of a module, and lists them in `KERNELS` for tests that inspect all kernels. A kernel is assembled
/// from the files that it uses, if any, and from the file of its name.
macro_rules! kernels {
    ($($name:ident: $stem:literal {
        $(uses: [$($file:literal),+],)?
        parameters: $parameters:ident,
        $(constants: [$($constant:tt),+],)?
        bindings: $bindings:tt $(,)?
    })+) => {
        $($crate::gpu::kernel!($name: $stem {
            files: [$($($file,)+)? $stem],
            parameters: $parameters,
            constants: [$($($constant),+)?],
            bindings: $bindings,
        });)+

        #[cfg(test)]
        pub(crate) static KERNELS: &[&$crate::gpu::Kernel] = &[$(&$name),+];
    };
}
pub(crate) use kernels;

/// A pipeline with the layout of its bindings.
pub(super) struct Compiled {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    /// A number that is unique among all compiled pipelines, used by bind groups and passes.
    pub(super) id: usize,
    kernel: Origin,
    /// The values of the constants, followed by zeros.
    values: [u32; MAX_CONSTANTS],
}

impl Compiled {
    /// Whether this is `kernel` with these constants.
    pub(super) fn is(&self, kernel: &Kernel, values: &[u32]) -> bool {
        self.kernel == kernel.origin && self.values[..values.len()] == *values
    }
}

type PipelineKey = (Origin, [u32; MAX_CONSTANTS]);

/// Compiled pipelines by kernel and constants, and shader modules by kernel.
pub(super) struct KernelCache {
    most: usize,
    /// Whether parameters are passed as immediates.
    pub(super) immediates: bool,
    /// Whether the shaders of this crate have run-time checks too.
    checked: bool,
    pipelines: Mutex<Pipelines>,
}

#[derive(Default)]
struct Pipelines {
    cached: HashMap<PipelineKey, CachedPipeline, BuildHasherDefault<Mixer>>,
    /// The modules of the cached pipelines.
    modules: HashMap<Origin, wgpu::ShaderModule>,
    /// How many pipelines have been compiled so far.
    compiled: usize,
    /// How many pipelines have been requested so far.
    requests: u64,
}

struct CachedPipeline {
    compiled: Arc<Compiled>,
    /// The number of its last request.
    used: u64,
}

/// A requested pipeline, and the one that was evicted for it.
pub(super) struct Fetched {
    pub(super) compiled: Arc<Compiled>,
    /// The number of the evicted pipeline, whose bind groups must be dropped.
    pub(super) dropped: Option<usize>,
}

impl Pipelines {
    fn get(&mut self, key: &PipelineKey) -> Option<Arc<Compiled>> {
        self.requests += 1;
        let cached = self.cached.get_mut(key)?;
        cached.used = self.requests;
        Some(Arc::clone(&cached.compiled))
    }

    /// Evicts the least recently used pipeline, and its module unless the kernel `next` or another pipeline
    /// uses it.
    fn drop_one(&mut self, next: Origin) -> Option<usize> {
        let (&key, _) = self.cached.iter().min_by_key(|(_, cached)| cached.used)?;
        let dropped = self.cached.remove(&key)?;
        if key.0 != next && !self.cached.keys().any(|other| other.0 == key.0) {
            self.modules.remove(&key.0);
        }
        Some(dropped.compiled.id)
    }
}

impl KernelCache {
    /// Creates a cache of at most `most` pipelines, and at least one.
    pub(super) fn new(most: Option<usize>, immediates: bool, checked: bool) -> Self {
        let most = most.unwrap_or(MAX_PIPELINES).max(1);
        Self { most, immediates, checked, pipelines: Mutex::default() }
    }

    /// Returns the pipeline of `kernel` with its constants set to `values`; compiles it unless it is cached.
    ///
    /// # Errors
    /// [`Error::Shader`] for a user's kernel that the device refuses; [`Error::Internal`] for values that the
    /// kernel does not accept; out of memory; other errors of the driver.
    pub(super) fn compiled(&self, device: &wgpu::Device, kernel: &Kernel, values: &[u32]) -> Result<Fetched> {
        let mut pairs = kernel.constants.iter().zip(values);
        let allowed =
            values.len() == kernel.constants.len() && pairs.all(|(&(_, allowed), &value)| value < allowed);
        Error::expect(allowed, || format!("{values:?} for the constants of the kernel `{}`", kernel.name))?;
        let mut padded = [0; MAX_CONSTANTS];
        padded[..values.len()].copy_from_slice(values);
        let mut guard = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let pipelines = &mut *guard;
        let key = (kernel.origin, padded);
        if let Some(compiled) = pipelines.get(&key) {
            return Ok(Fetched { compiled, dropped: None });
        }
        let id = pipelines.compiled;
        // Errors are reported to the thread that compiles.
        let mut compile = || {
            scoped(device, || {
                let module = pipelines
                    .modules
                    .entry(kernel.origin)
                    .or_insert_with(|| self.create_module(device, kernel));
                self.compile(device, kernel, module, padded, id)
            })
        };
        let compiled = match kernel.origin {
            Origin::Crate(_) => compile(),
            // A user's text may nest deeply; if no thread can be created, compile on the caller's stack.
            Origin::User(_) => on_compiler_stack(&mut compile).unwrap_or_else(|_| compile()),
        };
        let compiled = Arc::new(compiled.map_err(|error| {
            // The device may have refused this module.
            pipelines.modules.remove(&kernel.origin);
            kernel.refused(&error)
        })?);
        let dropped =
            if pipelines.cached.len() >= self.most { pipelines.drop_one(kernel.origin) } else { None };
        pipelines.compiled += 1;
        let used = pipelines.requests;
        pipelines.cached.insert(key, CachedPipeline { compiled: Arc::clone(&compiled), used });
        Ok(Fetched { compiled, dropped })
    }

    /// How many pipelines have been compiled so far.
    pub(super) fn count(&self) -> usize {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).compiled
    }

    fn compile(
        &self,
        device: &wgpu::Device,
        kernel: &Kernel,
        module: &wgpu::ShaderModule,
        values: [u32; MAX_CONSTANTS],
        id: usize,
    ) -> Compiled {
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(&kernel.name),
            entries: &self.layout_entries(kernel),
        });
        let immediate_size = if self.immediates { kernel.parameter_bytes as u32 } else { 0 };
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&kernel.name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size,
        });
        let constants: Vec<(&str, f64)> = kernel
            .constants
            .iter()
            .zip(&values)
            .map(|(&(name, _), &value)| (name, f64::from(value)))
            .collect();
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&kernel.name),
            layout: Some(&pipeline_layout),
            module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                // Every kernel writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        Compiled { pipeline, layout, id, kernel: kernel.origin, values }
    }

    fn layout_entries(&self, kernel: &Kernel) -> Vec<wgpu::BindGroupLayoutEntry> {
        let entry = |binding: u32, ty: wgpu::BufferBindingType, has_dynamic_offset: bool| {
            wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
                count: None,
            }
        };
        let uniform = (!self.immediates).then(|| entry(0, wgpu::BufferBindingType::Uniform, true));
        let storage = kernel.bindings.iter().zip(1..).map(|(&access, binding)| {
            let read_only = access == Access::Read;
            entry(binding, wgpu::BufferBindingType::Storage { read_only }, false)
        });
        uniform.into_iter().chain(storage).collect()
    }

    fn create_module(&self, device: &wgpu::Device, kernel: &Kernel) -> wgpu::ShaderModule {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(&kernel.name),
            source: wgpu::ShaderSource::Wgsl(kernel.wgsl(self.immediates).into()),
        };
        if self.checked || kernel.origin.is_user() {
            return device.create_shader_module(descriptor);
        }
        // SAFETY: the shader is one of this crate's own. Each checks its indices against sizes that its
        // operation derived from the bound buffers, its loops terminate, and the same tests pass with
        // run-time checks enabled.
        unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
    }
}
