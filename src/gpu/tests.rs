//! Checks of the shaders that need no GPU: every variant is valid WGSL, translates to the language of every
//! platform, and is within the limits that every device supports.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use naga::back::pipeline_constants::process_overrides;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module};

use super::kernel::{Access, Kernel, MAX_BINDINGS};
use super::persistent;
use crate::ops::{kernels, recurrent};

/// Limits that WebGPU guarantees.
const PROMISED_STORAGE_BUFFERS: usize = 8;
const PROMISED_INVOCATIONS: u32 = 256;
const PROMISED_WORKGROUP_BYTES: u32 = 16 * 1024;

/// Persistent kernels exceed the guaranteed limits: they run only where `persistent` has checked the device.
fn asks_for_more(name: &str) -> bool {
    name.starts_with("recurrent/persistent") && !name.starts_with("recurrent/persistent/clear")
}

/// The kernel's module with the parameters in one of the two address spaces, validated.
fn parse(kernel: &Kernel, immediates: bool) -> (Module, ModuleInfo) {
    let source = kernel.wgsl(immediates);
    let module = naga::front::wgsl::parse_str(&source)
        .unwrap_or_else(|error| panic!("{}: {}", kernel.name, error.emit_to_string(&source)));
    let capabilities = if immediates { Capabilities::IMMEDIATES } else { Capabilities::empty() };
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{}: {}", kernel.name, error.emit_to_string(&source)));
    (module, info)
}

/// The most combinations of constants of which all are tested.
const ALL_COMBINATIONS: usize = 64;

/// Constants that are only sizes: no branch depends on a single value.
const SIZES: [&str; 4] = ["SLICE_BITS", "UNIT_BITS", "QUAD_BITS", "WEIGHT_BITS"];

/// The values of a constant that are tested.
fn sample(name: &str, allowed: u32) -> Vec<f64> {
    match allowed {
        // The smallest and the largest.
        sizes if SIZES.contains(&name) => vec![0.0, f64::from(sizes - 1)],
        allowed => (0..allowed).map(f64::from).collect(),
    }
}

/// All combinations of values of the kernel's constants; if there are many, each value of each constant with
/// the first, and with the last, of all others.
fn constants(kernel: &Kernel) -> Vec<HashMap<String, f64>> {
    let values: Vec<(String, Vec<f64>)> =
        kernel.constants.iter().map(|&(name, allowed)| (name.to_owned(), sample(name, allowed))).collect();
    let with = |result: &HashMap<String, f64>, name: &str, value: f64| {
        let mut result = result.clone();
        result.insert(name.to_owned(), value);
        result
    };
    if values.iter().map(|(_, values)| values.len()).product::<usize>() <= ALL_COMBINATIONS {
        return values.iter().fold(vec![HashMap::new()], |result, (name, values)| {
            result.iter().flat_map(|result| values.iter().map(|&value| with(result, name, value))).collect()
        });
    }
    let end = |last: bool| -> HashMap<String, f64> {
        let value = |values: &[f64]| if last { values[values.len() - 1] } else { values[0] };
        values.iter().map(|(name, values)| (name.clone(), value(values))).collect()
    };
    let each = |around: &HashMap<String, f64>| -> Vec<_> {
        values
            .iter()
            .flat_map(|(name, values)| values.iter().map(|&value| with(around, name, value)))
            .collect()
    };
    [each(&end(false)), each(&end(true))].concat()
}

/// Calls `look` for every address space and combination of constants of a kernel.
fn for_every_variant(kernel: &Kernel, look: impl Fn(&str, &Module, &ModuleInfo)) {
    for immediates in [false, true] {
        for_every_variant_of(kernel, immediates, |name, _, module, info| look(name, module, info));
    }
}

/// Calls `look` for every combination of the kernel's constants.
fn for_every_variant_of(
    kernel: &Kernel,
    immediates: bool,
    mut look: impl FnMut(&str, &HashMap<String, f64>, &Module, &ModuleInfo),
) {
    let (module, info) = parse(kernel, immediates);
    for values in constants(kernel) {
        let name = format!("{} {values:?}", kernel.name);
        let stage = Some((naga::ShaderStage::Compute, "main"));
        let overrides: naga::back::PipelineConstants = values.clone().into_iter().collect();
        let (module, info) = process_overrides(&module, &info, stage, &overrides)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        look(&name, &values, &module, &info);
    }
}

/// The workgroup memory that a variant declares.
fn workgroup_bytes(name: &str, module: &Module) -> u32 {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let variables = module.global_variables.iter();
    let shared = variables.filter(|(_, variable)| variable.space == AddressSpace::WorkGroup);
    shared.map(|(_, variable)| layouter[variable.ty].size).sum()
}

fn translate_to_spirv(name: &str, module: &Module, info: &ModuleInfo) {
    let pipeline = naga::back::spv::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: "main".to_owned(),
    };
    let words = naga::back::spv::write_vec(module, info, &Default::default(), Some(&pipeline))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(words.len() > 100, "{name}: {} words", words.len());
}

fn translate_to_metal(name: &str, module: &Module, info: &ModuleInfo) {
    let mut options = naga::back::msl::Options { lang_version: (2, 0), ..Default::default() };
    let resources = naga::back::msl::EntryPointResources { immediates_buffer: Some(0), ..Default::default() };
    options.per_entry_point_map.insert("main".to_owned(), resources);
    let (text, _) = naga::back::msl::write_string(module, info, &options, &Default::default())
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(text.contains("kernel void main_"), "{name}: {text}");
}

fn translate_to_hlsl(name: &str, module: &Module, info: &ModuleInfo) {
    let options = naga::back::hlsl::Options {
        shader_model: naga::back::hlsl::ShaderModel::V6_0,
        immediates_target: Some(naga::back::hlsl::BindTarget::default()),
        ..Default::default()
    };
    let pipeline = naga::back::hlsl::PipelineOptions::default();
    let mut text = String::new();
    naga::back::hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(module, info, None)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(text.contains("[numthreads("), "{name}: {text}");
}

fn expect_within_promised_limits(name: &str, module: &Module) {
    let [x, y, z] = module.entry_points[0].workgroup_size;
    assert!((1..=PROMISED_INVOCATIONS).contains(&(x * y * z)), "{name}: {x} x {y} x {z}");
    let bytes = workgroup_bytes(name, module);
    let most = match asks_for_more(name) {
        true => persistent::workgroup_bytes(persistent::WEIGHT_CLASSES - 1),
        false => PROMISED_WORKGROUP_BYTES,
    };
    assert!(bytes <= most, "{name}: {bytes} bytes");
}

/// Each variant is assembled and validated once, for all platforms; threads share the kernels.
#[test]
fn every_variant_translates_to_every_platform_and_fits_the_limits_of_all_devices() {
    let next = AtomicUsize::new(0);
    let variants = AtomicUsize::new(0);
    let kernels = kernels();
    let work = || {
        while let Some(kernel) = kernels.get(next.fetch_add(1, Ordering::Relaxed)) {
            for_every_variant(kernel, |name, module, info| {
                translate_to_spirv(name, module, info);
                translate_to_metal(name, module, info);
                translate_to_hlsl(name, module, info);
                expect_within_promised_limits(name, module);
                variants.fetch_add(1, Ordering::Relaxed);
            });
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        // A thread that panics takes the test with it, with the message of the variant.
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let variants = variants.into_inner();
    assert!(variants >= 2 * kernels.len(), "only {variants} variants of {} kernels", kernels.len());
}

#[test]
fn bindings_are_as_their_shaders_declare_them() {
    for kernel in kernels() {
        let (module, _) = parse(kernel, false);
        let mut declared: Vec<(u32, Access)> = module
            .global_variables
            .iter()
            .filter_map(|(_, variable)| {
                let AddressSpace::Storage { access } = variable.space else { return None };
                let writes = access.contains(naga::StorageAccess::STORE);
                let binding = variable.binding.as_ref().map(|place| (place.group, place.binding));
                let (group, binding) = binding.unwrap_or_else(|| panic!("{}: unbound", kernel.name));
                assert_eq!(group, 0, "{}", kernel.name);
                Some((binding, if writes { Access::Write } else { Access::Read }))
            })
            .collect();
        declared.sort_by_key(|(binding, _)| *binding);
        let expected: Vec<(u32, Access)> = (1..).zip(kernel.bindings.iter().copied()).collect();
        assert_eq!(declared, expected, "{}", kernel.name);
        let most = match asks_for_more(&kernel.name) {
            true => MAX_BINDINGS,
            false => PROMISED_STORAGE_BUFFERS,
        };
        assert!(kernel.bindings.len() <= most, "{}", kernel.name);
    }
}

#[test]
fn constants_are_as_their_shaders_declare_them() {
    for kernel in kernels() {
        let (module, _) = parse(kernel, false);
        let declared: BTreeSet<_> =
            module.overrides.iter().filter_map(|(_, value)| value.name.clone()).collect();
        let expected: BTreeSet<_> = kernel.constants.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(declared, expected, "{}", kernel.name);
    }
}

#[test]
fn kernel_names_are_unique_and_every_shader_file_is_used() {
    let kernels = kernels();
    let names: BTreeSet<_> = kernels.iter().map(|kernel| &kernel.name).collect();
    assert_eq!(names.len(), kernels.len());
    let shaders = concat!(env!("CARGO_MANIFEST_DIR"), "/shaders");
    let mut folders = vec![std::path::PathBuf::from(shaders)];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        for path in entries.map(|entry| entry.unwrap_or_else(|error| panic!("{folder:?}: {error}")).path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            assert!(kernels.iter().any(|kernel| kernel.source.contains(&*text)), "{path:?} is not used");
            seen += 1;
        }
    }
    assert!(seen >= 70, "found only {seen} shader files under {shaders}");
}

/// What `scripts/tint` hands to another compiler of WGSL: of each kernel its text, and of each of its variants the constants
/// and the workgroup memory.
#[test]
#[ignore = "writes a file for scripts/tint, to the path in REFRAIN_WRITE_SHADERS"]
fn every_shader_is_written_for_other_compilers() {
    let Some(path) = std::env::var_os("REFRAIN_WRITE_SHADERS") else {
        panic!("set REFRAIN_WRITE_SHADERS to the path of the file to write")
    };
    let written = |kernel: &Kernel| {
        let mut variants = Vec::new();
        for_every_variant_of(kernel, false, |name, values, module, _| {
            let bytes = workgroup_bytes(name, module);
            variants.push(serde_json::json!({ "constants": values, "workgroup_bytes": bytes }));
        });
        let (name, text) = (&*kernel.name, kernel.wgsl(false));
        serde_json::json!({ "name": name, "wgsl": text, "storage_buffers": kernel.bindings.len(), "variants": variants })
    };
    let custom = recurrent::custom_examples();
    let kernels = kernels().into_iter().chain(custom.iter());
    let shaders: Vec<_> = kernels.map(written).collect();
    std::fs::write(&path, serde_json::Value::from(shaders).to_string())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
