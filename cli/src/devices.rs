//! `refrain devices`, and opening devices by name.

use std::path::PathBuf;

use refrain::tuning::{TUNING_VARIABLE, Tuning};
use refrain::{AdapterSummary, DEVICE_VARIABLE, Device};

use crate::failure::Result;
use crate::format::bytes;
use crate::terminal::{stderr, stdout};

/// Opens the device named by `--device`.
///
/// # Errors
/// [`refrain::Error::NoAdapter`] or [`refrain::Error::NoHardware`], listing available devices; errors of the driver.
pub(crate) fn open(name: &str) -> Result<Device> {
    warned(match name.trim() {
        "auto" => Device::auto()?,
        name => Device::named(name)?,
    })
}

/// Returns the device; warns on standard error if it ignores stored choices that were requested.
pub(crate) fn warned(device: Device) -> Result<Device> {
    if let Some(warning) = device.tuning_warning() {
        writeln!(stderr(), "warning: stored choices are ignored, using heuristics: {warning}")?;
    }
    Ok(device)
}

/// The GPU's name for [`Device::gpu_with`]: that of `--device`, or for `auto` the one that [`Device::auto`] looks for.
pub(crate) fn wish(name: &str) -> String {
    match name.trim() {
        "auto" => asked().unwrap_or_else(|| "gpu".to_owned()),
        name => name.to_owned(),
    }
}

/// The device named by the environment variable, if any.
fn asked() -> Option<String> {
    let asked = std::env::var_os(DEVICE_VARIABLE)?.to_string_lossy().trim().to_owned();
    (!matches!(asked.as_str(), "" | "auto")).then_some(asked)
}

/// Describes a device in one line.
pub(crate) fn describe(device: &Device) -> String {
    let name = device.to_string();
    match device.adapter() {
        Some(adapter) => format!("{name} ({}, {})", adapter.kind, adapter.backend),
        None if name == "reference" => "reference (the CPU in 64-bit floats)".to_owned(),
        None => name,
    }
}

/// Describes how a GPU that is opened without options makes choices.
pub(crate) fn tuning(adapter: &AdapterSummary) -> String {
    let asked = Tuning::is_asked_for();
    let choices =
        |tuning: &Tuning, path: PathBuf| format!("measured choices: {}, in {}", tuning.len(), path.display());
    match (Tuning::stored(adapter), Tuning::stored_path(adapter)) {
        (Ok(_), None) => format!("off, using heuristics ({TUNING_VARIABLE}=0 or no cache folder)"),
        (Ok(Some(tuning)), Some(path)) if asked => choices(&tuning, path),
        (Ok(Some(tuning)), Some(path)) => {
            format!("off, using heuristics ({TUNING_VARIABLE}=on uses {})", choices(&tuning, path))
        }
        (Ok(None), Some(_)) if asked => "none, using heuristics (`refrain tune` measures)".to_owned(),
        (Ok(None), Some(_)) => {
            format!("off, using heuristics (`refrain tune` measures, {TUNING_VARIABLE}=on uses the result)")
        }
        (Err(error), _) if asked => format!("ignored, using heuristics: {error}"),
        (Err(error), _) => format!("off, using heuristics; the stored choices are unusable: {error}"),
    }
}

/// Prints all devices, and the one that `auto` selects.
pub(crate) fn run() -> Result<()> {
    let mut out = stdout();
    writeln!(out, "cpu         32-bit floats\n            --device cpu")?;
    writeln!(out, "reference   the CPU in 64-bit floats: slow, exact\n            --device reference")?;
    let adapters = Device::list();
    for adapter in &adapters {
        writeln!(out, "{}            tuning {}", details(adapter), tuning(adapter))?;
    }
    if adapters.is_empty() {
        writeln!(out, "no GPU: the system has no Vulkan, Metal or DirectX 12 driver for one")?;
    }
    let why = match asked() {
        Some(name) => format!("{DEVICE_VARIABLE}={name}"),
        None => "the first hardware GPU, or else the CPU".to_owned(),
    };
    match Device::auto() {
        Ok(device) => writeln!(out, "auto takes  {device} ({why})")?,
        Err(error) => writeln!(out, "auto fails  {error} ({why})")?,
    }
    Ok(())
}

fn details(adapter: &AdapterSummary) -> String {
    let (smallest, largest) = adapter.subgroup_sizes;
    let subgroups =
        if smallest == largest { smallest.to_string() } else { format!("{smallest} to {largest}") };
    let features = match adapter.features.is_empty() {
        true => "none".to_owned(),
        false => adapter.features.join(", "),
    };
    let rows = [
        format!("gpu:{:<7} {}", adapter.index, adapter.name),
        format!("--device gpu:{}, or a part of the name", adapter.index),
        format!("kind {}, backend {}, driver {}", adapter.kind, adapter.backend, adapter.driver),
        format!(
            "buffer up to {}, binding up to {}",
            bytes(adapter.max_buffer_bytes),
            bytes(adapter.max_binding_bytes)
        ),
        format!(
            "workgroup up to {} invocations and {}, subgroups of {subgroups}, immediates {}",
            adapter.workgroup_invocations,
            bytes(adapter.workgroup_bytes.into()),
            bytes(adapter.immediate_bytes.into()),
        ),
        format!("features {features}"),
    ];
    rows.join("\n            ") + "\n"
}

#[cfg(test)]
mod tests {
    use refrain::AdapterKind;

    use super::*;

    #[test]
    fn an_adapter_shows_what_selects_it_and_what_it_can() {
        let adapter = AdapterSummary {
            index: 2,
            name: "Imaginary 9000".into(),
            kind: AdapterKind::Discrete,
            backend: "vulkan".into(),
            driver: "imaginary 1.0".into(),
            max_buffer_bytes: 1 << 31,
            max_binding_bytes: 1 << 27,
            workgroup_bytes: 32 << 10,
            workgroup_invocations: 1024,
            subgroup_sizes: (32, 64),
            immediate_bytes: 128,
            features: vec!["f16".into(), "subgroups".into()],
        };
        let text = details(&adapter);
        for part in [
            "Imaginary 9000",
            "--device gpu:2",
            "discrete GPU",
            "2.0 GiB",
            "128.0 MiB",
            "1024 invocations and 32.0 KiB",
            "subgroups of 32 to 64",
            "f16, subgroups",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
