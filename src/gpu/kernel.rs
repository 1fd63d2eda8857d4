//! Shaders as data, and the cache of their compiled pipelines.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, PoisonError};

use super::context::Context;
use super::faults::{refused, scoped};
use super::groups::Mixer;
use super::stack::on_compiler_stack;
use crate::{Error, Result};

/// The most pipelines that a device keeps. Training and inference of a model take some tens; software adapters need some MiB
/// for each.
pub(super) const MAX_PIPELINES: usize = 512;
/// The most override constants a kernel may have.
const MAX_CONSTANTS: usize = 32;
/// The most storage bindings a kernel may have: those of the kernels whose workgroups wait for each other.
pub(super) const MAX_BINDINGS: usize = 10;

/// How a shader uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    Write,
}

/// Who wrote a shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This crate: a release build trusts it.
    Crate,
    /// A user, in part: it is guarded at run time in every build.
    User,
}

/// A compute shader: entry point `main`, parameters at binding 0, storage bindings from 1 on.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The stem of its file under `shaders/`.
    pub(crate) name: &'static str,
    /// Its WGSL, included parts and all.
    pub(crate) source: &'static str,
    pub(crate) origin: Origin,
    /// Its `override` constants, in the order in which a dispatch gives their values, and how many values each may
    /// take. Each combination compiles a pipeline: what has many values, such as a real number, is a parameter.
    pub(crate) constants: &'static [(&'static str, u32)],
    /// Its storage bindings, from binding 1 on.
    pub(crate) bindings: &'static [Access],
    /// The members of its parameter struct in WGSL, as [`parameters`] emits them.
    pub(crate) members: &'static str,
    /// Size of the parameter struct in bytes.
    pub(crate) parameter_bytes: usize,
}

impl Kernel {
    /// Refuses, when this crate is compiled, a kernel that the keys of the caches have no room for.
    pub(crate) const fn checked(self) -> Self {
        assert!(self.constants.len() <= MAX_CONSTANTS && self.bindings.len() <= MAX_BINDINGS);
        self
    }

    /// The shader's text as a device compiles it: its files, then its parameters, in the address space that the device offers.
    pub(crate) fn wgsl(&self, immediates: bool) -> String {
        let variable = if immediates { "var<immediate>" } else { "@group(0) @binding(0) var<uniform>" };
        let Self { source, members, .. } = self;
        format!("{source}\nstruct Parameters {{\n{members}}}\n{variable} parameters: Parameters;\n")
    }

    /// The error of a kernel that the driver refuses.
    fn refused(&self, error: &wgpu::Error) -> Error {
        match self.origin {
            Origin::User if !matches!(error, wgpu::Error::OutOfMemory { .. }) => {
                Error::Shader { what: format!("the kernel `{}`", self.name), message: error.to_string() }
            }
            _ => refused(&format!("the kernel `{}`", self.name), error),
        }
    }
}

/// Declares the parameters of a kernel once: the `#[repr(C)]` struct that Rust fills, and the members of the WGSL struct
/// that its shader reads as `parameters`. Members have four bytes each, so that both have the same layout.
macro_rules! parameters {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $kind:ident),* $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        pub(crate) struct $name {
            $($(#[$doc])* pub(crate) $field: $kind,)*
        }

        impl $name {
            /// The members in WGSL, a line each.
            pub(crate) const MEMBERS: &'static str =
                concat!($("    ", stringify!($field), ": ", stringify!($kind), ",\n"),*);
        }

        const _: () = assert!(size_of::<$name>() <= $crate::gpu::IMMEDIATE_BYTES as usize);
    };
}
pub(crate) use parameters;

/// Declares a [`Kernel`]: its name, and of which cell it is one, the files under `shaders/` that make it up, its
/// parameters, the override constants with the number of values each may take, and its bindings.
macro_rules! kernel {
    ($name:ident: $stem:literal $(of $cell:ident)? {
        files: [$($file:literal),+],
        parameters: $parameters:ident,
        constants: [$(($constant:literal, $values:expr)),*],
        bindings: [$($access:ident),+] $(,)?
    }) => {
        static $name: $crate::gpu::Kernel = $crate::gpu::Kernel {
            name: concat!($stem $(, ".", stringify!($cell))?),
            source: concat!(
                $(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file, ".wgsl"))),+
            ),
            origin: $crate::gpu::Origin::Crate,
            constants: &[$(($constant, $values)),*],
            bindings: &[$($crate::gpu::Access::$access),+],
            members: $parameters::MEMBERS,
            parameter_bytes: size_of::<$parameters>(),
        }
        .checked();
    };
}
pub(crate) use kernel;

/// A pipeline with the layout of its bindings.
pub(super) struct Compiled {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    /// Its number among all that were ever compiled, by which bind groups and passes know it.
    pub(super) id: usize,
    kernel: &'static Kernel,
    /// The constants' values, then zeros.
    values: [u32; MAX_CONSTANTS],
}

impl Compiled {
    /// Whether this is `kernel` with these constants.
    pub(super) fn is(&self, kernel: &'static Kernel, values: &[u32]) -> bool {
        std::ptr::eq(self.kernel, kernel) && self.values[..values.len()] == *values
    }
}

type Key = (&'static str, [u32; MAX_CONSTANTS]);

/// Compiled pipelines by kernel and constants; modules by kernel.
pub(super) struct KernelCache {
    most: usize,
    pipelines: Mutex<Pipelines>,
}

#[derive(Default)]
struct Pipelines {
    cached: HashMap<Key, CachedPipeline, BuildHasherDefault<Mixer>>,
    /// Those of the kept pipelines.
    modules: HashMap<&'static str, wgpu::ShaderModule>,
    /// How many were ever compiled.
    compiled: usize,
    /// How many were ever asked for.
    requests: u64,
}

struct CachedPipeline {
    compiled: Arc<Compiled>,
    /// The number of the last request for it.
    used: u64,
}

/// A pipeline that was asked for, and the one that was let go for it.
pub(super) struct Fetched {
    pub(super) compiled: Arc<Compiled>,
    /// The number of a pipeline for which nothing may be kept any more.
    pub(super) dropped: Option<usize>,
}

impl KernelCache {
    /// A cache of at most `most` pipelines; of one at least.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), pipelines: Mutex::default() }
    }
}

impl Pipelines {
    fn get(&mut self, key: &Key) -> Option<Arc<Compiled>> {
        self.requests += 1;
        let cached = self.cached.get_mut(key)?;
        cached.used = self.requests;
        Some(Arc::clone(&cached.compiled))
    }

    /// Lets go of the pipeline that was not used for the longest time, and of its module unless it is that of the kernel `next` or
    /// of another pipeline.
    fn drop_one(&mut self, next: &str) -> Option<usize> {
        let (&key, _) = self.cached.iter().min_by_key(|(_, cached)| cached.used)?;
        let dropped = self.cached.remove(&key)?;
        if key.0 != next && !self.cached.keys().any(|other| other.0 == key.0) {
            self.modules.remove(key.0);
        }
        Some(dropped.compiled.id)
    }
}

impl Context {
    /// The pipeline of `kernel` with its constants set to `values`, compiled unless it is kept.
    ///
    /// # Errors
    /// [`Error::Shader`] for a user's kernel that the device refuses; [`Error::Internal`] for values that the kernel does not
    /// take; out of memory; whatever else the driver says of it.
    pub(super) fn compiled(&self, kernel: &'static Kernel, values: &[u32]) -> Result<Fetched> {
        let mut pairs = kernel.constants.iter().zip(values);
        let allowed =
            values.len() == kernel.constants.len() && pairs.all(|(&(_, allowed), &value)| value < allowed);
        Error::expect(allowed, || format!("{values:?} for the constants of the kernel `{}`", kernel.name))?;
        let mut padded = [0; MAX_CONSTANTS];
        padded[..values.len()].copy_from_slice(values);
        let cache = self.kernels();
        let mut guard = cache.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let pipelines = &mut *guard;
        let key = (kernel.name, padded);
        if let Some(compiled) = pipelines.get(&key) {
            return Ok(Fetched { compiled, dropped: None });
        }
        let id = pipelines.compiled;
        // Errors are reported to the thread that compiles.
        let mut compile = || {
            scoped(self.device(), || {
                let module =
                    pipelines.modules.entry(kernel.name).or_insert_with(|| self.create_module(kernel));
                self.compile(kernel, module, padded, id)
            })
        };
        let compiled = match kernel.origin {
            Origin::Crate => compile(),
            // As deep as a user's text may nest; without a thread to be had the caller's stack has to do.
            Origin::User => on_compiler_stack(&mut compile).unwrap_or_else(|_| compile()),
        };
        let compiled = Arc::new(compiled.map_err(|error| {
            // It may be the module that the device refused.
            pipelines.modules.remove(kernel.name);
            kernel.refused(&error)
        })?);
        let dropped =
            if pipelines.cached.len() >= cache.most { pipelines.drop_one(kernel.name) } else { None };
        pipelines.compiled += 1;
        let used = pipelines.requests;
        pipelines.cached.insert(key, CachedPipeline { compiled: Arc::clone(&compiled), used });
        Ok(Fetched { compiled, dropped })
    }

    /// How many pipelines were ever compiled.
    pub(crate) fn pipelines(&self) -> usize {
        self.kernels().pipelines.lock().unwrap_or_else(PoisonError::into_inner).compiled
    }

    fn compile(
        &self,
        kernel: &'static Kernel,
        module: &wgpu::ShaderModule,
        values: [u32; MAX_CONSTANTS],
        id: usize,
    ) -> Compiled {
        let device = self.device();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(kernel.name),
            entries: &self.layout_entries(kernel),
        });
        let immediate_size = if self.immediates() { kernel.parameter_bytes as u32 } else { 0 };
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.name),
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
            label: Some(kernel.name),
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
        Compiled { pipeline, layout, id, kernel, values }
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
        let uniform = (!self.immediates()).then(|| entry(0, wgpu::BufferBindingType::Uniform, true));
        let storage = kernel.bindings.iter().zip(1..).map(|(&access, binding)| {
            let read_only = access == Access::Read;
            entry(binding, wgpu::BufferBindingType::Storage { read_only }, false)
        });
        uniform.into_iter().chain(storage).collect()
    }

    fn create_module(&self, kernel: &'static Kernel) -> wgpu::ShaderModule {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(kernel.name),
            source: wgpu::ShaderSource::Wgsl(kernel.wgsl(self.immediates()).into()),
        };
        if self.checked() || kernel.origin == Origin::User {
            return self.device().create_shader_module(descriptor);
        }
        // SAFETY: the shader is one of this crate's own. Each guards its indexes by sizes that the contract of
        // its operation derived from the bound buffers, its loops end, and the same tests pass with the runtime
        // checks on.
        unsafe {
            self.device().create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
        }
    }
}
