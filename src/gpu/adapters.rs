//! Enumerates adapters in order of preference: discrete, integrated, virtual, other, software.

use std::fmt;
use std::sync::OnceLock;

/// The kind of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A GPU shared with a virtual machine.
    Virtual,
    /// Hardware of an unknown kind.
    Other,
    /// A software renderer: correct but slow. It is used only if requested by name or number.
    Software,
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Discrete => "discrete GPU",
            Self::Integrated => "integrated GPU",
            Self::Virtual => "virtual GPU",
            Self::Other => "other",
            Self::Software => "software",
        })
    }
}

/// An available adapter, with its limits and features.
#[derive(Clone, Debug)]
pub struct AdapterSummary {
    /// The index in order of preference: the `N` of `gpu:N`.
    pub index: usize,
    /// The name reported by the driver.
    pub name: String,
    /// The kind of hardware.
    pub kind: AdapterKind,
    /// The graphics interface, such as `vulkan`.
    pub backend: String,
    /// Driver name and version.
    pub driver: String,
    /// The largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// The largest binding of a buffer, in bytes; larger work is split.
    pub max_binding_bytes: u64,
    /// Workgroup memory, in bytes.
    pub workgroup_bytes: u32,
    /// The most invocations of a workgroup.
    pub workgroup_invocations: u32,
    /// The smallest and the largest subgroup size.
    pub subgroup_sizes: (u32, u32),
    /// Bytes of immediate data (push constants); zero where dynamic uniform offsets are used instead.
    pub immediate_bytes: u32,
    /// Optional features that this crate uses or will use, by name.
    pub features: Vec<String>,
}

impl AdapterSummary {
    /// The adapter of a dry run.
    pub(super) fn none() -> Self {
        Self {
            index: 0,
            name: "dry run".to_owned(),
            kind: AdapterKind::Software,
            backend: String::new(),
            driver: String::new(),
            max_buffer_bytes: 0,
            max_binding_bytes: 0,
            workgroup_bytes: 0,
            workgroup_invocations: 0,
            subgroup_sizes: (0, 0),
            immediate_bytes: 0,
            features: Vec::new(),
        }
    }
}

pub(super) struct Candidate {
    pub(super) adapter: wgpu::Adapter,
    pub(super) kind: AdapterKind,
}

fn kind(info: &wgpu::AdapterInfo) -> AdapterKind {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Cpu => AdapterKind::Software,
        wgpu::DeviceType::Other => AdapterKind::Other,
    }
}

/// The `wgpu` instance; `None` on Linux without a Vulkan loader.
#[cfg(not(target_os = "linux"))]
fn instance() -> Option<wgpu::Instance> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    // Validation layers and debug labels are for debugging drivers.
    descriptor.flags = wgpu::InstanceFlags::empty();
    Some(wgpu::Instance::new(descriptor))
}

/// The Vulkan instance; `None` without a loader.
///
/// The extensions of window systems are not enabled. `wgpu::Instance::new` enables them; Mesa's
/// device-selection layer then connects to the window system at every enumeration of adapters, and libwayland
/// prints an error on a machine without one.
#[cfg(target_os = "linux")]
fn instance() -> Option<wgpu::Instance> {
    use wgpu::hal::{InstanceDescriptor, vulkan};
    let descriptor = InstanceDescriptor {
        name: "refrain",
        // As above: no validation, no debug labels.
        flags: wgpu::InstanceFlags::empty(),
        memory_budget_thresholds: wgpu::MemoryBudgetThresholds::default(),
        backend_options: wgpu::BackendOptions::default(),
        telemetry: None,
        display: None,
    };
    let without_window_systems = Box::new(|arguments: vulkan::CreateInstanceCallbackArgs<'_, '_, '_>| {
        let window_systems = [c"VK_KHR_wayland_surface", c"VK_KHR_xcb_surface", c"VK_KHR_xlib_surface"];
        arguments.extensions.retain(|name| !window_systems.contains(name));
    });
    // SAFETY: the callback changes only the list of extensions, and wgpu creates the instance from the
    // changed list and stores that list. It is the list that wgpu itself would use on a loader without these
    // three extensions. wgpu uses each of the three only to create a surface, which this crate never does,
    // and looks the extension up in the list first.
    let vulkan = unsafe { vulkan::Instance::init_with_callback(&descriptor, Some(without_window_systems)) };
    // SAFETY: the instance has just been created and has no other owner.
    vulkan.ok().map(|vulkan| unsafe { wgpu::Instance::from_hal::<wgpu::hal::api::Vulkan>(vulkan) })
}

/// All adapters in order of preference; none on a machine without a graphics loader.
pub(super) fn candidates() -> Vec<Candidate> {
    static INSTANCE: OnceLock<Option<wgpu::Instance>> = OnceLock::new();
    let Some(instance) = INSTANCE.get_or_init(instance) else { return Vec::new() };
    let mut found: Vec<Candidate> = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY))
        .into_iter()
        .map(|adapter| Candidate { kind: kind(&adapter.get_info()), adapter })
        .collect();
    found.sort_by_key(|candidate| candidate.kind);
    found
}

/// Descriptions of all adapters, in order of preference.
pub(crate) fn summaries() -> Vec<AdapterSummary> {
    candidates().iter().enumerate().map(|(index, candidate)| summary(index, candidate)).collect()
}

pub(super) fn summary(index: usize, candidate: &Candidate) -> AdapterSummary {
    let info = candidate.adapter.get_info();
    let limits = candidate.adapter.limits();
    let present = candidate.adapter.features();
    let interesting = [
        (wgpu::Features::IMMEDIATES, "immediates"),
        (wgpu::Features::TIMESTAMP_QUERY, "timestamps"),
        (wgpu::Features::SHADER_F16, "f16"),
        (wgpu::Features::SUBGROUP, "subgroups"),
    ];
    AdapterSummary {
        index,
        name: info.name,
        kind: candidate.kind,
        backend: format!("{:?}", info.backend).to_lowercase(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        max_buffer_bytes: limits.max_buffer_size,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        subgroup_sizes: (info.subgroup_min_size, info.subgroup_max_size),
        immediate_bytes: limits.max_immediate_size,
        features: interesting
            .into_iter()
            .filter(|(feature, _)| present.contains(*feature))
            .map(|(_, name)| name.to_owned())
            .collect(),
    }
}

/// The requested adapter.
#[derive(Clone, Debug)]
pub(crate) enum AdapterRequest {
    /// The first that is not a software renderer.
    Hardware,
    /// The N-th in order of preference, software included.
    Number(usize),
    /// The first whose name contains this lower-case text, ignoring case.
    Named(String),
}

impl AdapterRequest {
    fn accepts(&self, index: usize, candidate: &Candidate) -> bool {
        match self {
            Self::Hardware => candidate.kind != AdapterKind::Software,
            Self::Number(number) => index == *number,
            Self::Named(part) => candidate.adapter.get_info().name.to_lowercase().contains(part),
        }
    }
}

/// Parses `gpu`, `gpu:N` or a part of a name, ignoring case.
pub(crate) fn choose(text: &str) -> AdapterRequest {
    let text = text.trim().to_lowercase();
    match text.strip_prefix("gpu") {
        Some("") => AdapterRequest::Hardware,
        Some(rest) => match rest.strip_prefix(':').and_then(|number| number.parse().ok()) {
            Some(number) => AdapterRequest::Number(number),
            None => AdapterRequest::Named(text),
        },
        None => AdapterRequest::Named(text),
    }
}

/// Returns the first adapter that matches, with its index.
pub(super) fn find(wanted: &AdapterRequest) -> Option<(usize, Candidate)> {
    candidates().into_iter().enumerate().find(|(index, candidate)| wanted.accepts(*index, candidate))
}
