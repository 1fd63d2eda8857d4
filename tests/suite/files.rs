//! Checkpoints and weight files: round trips, foreign files, broken files, failing writes.

use std::path::Path;

use libtest_mimic::Failed;
use refrain::io::{Checkpoint, Metadata, load_weights, save_weights, write_atomically};
use refrain::nn::{Cell, Linear, Model, Parameters, Rnn};
use refrain::{Device, Error, Indices, Result};

use crate::adapters::{Outcome, Suite, on_cpu, on_devices};
use crate::misuse::refuses;
use crate::support::{Folder, Setup, all_parameters, expect_same_bits, random};

fn metadata() -> Metadata {
    Metadata::from([("vocabulary".to_owned(), "abc \"ü\"\n".to_owned()), ("step".to_owned(), "7".to_owned())])
}

/// A safetensors file written by hand: eight bytes of length, a JSON header, the numbers.
fn safetensors(tensors: &[(&str, &[usize], &[f32])], metadata: Option<&str>) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut data: Vec<u8> = Vec::new();
    if let Some(text) = metadata {
        entries.push(format!("\"__metadata__\":{text}"));
    }
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let end = data.len();
        entries.push(format!(
            "\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"
        ));
    }
    let mut header = format!("{{{}}}", entries.join(",")).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [(header.len() as u64).to_le_bytes().to_vec(), header, data].concat()
}

/// Saves with one device and loads on another; both models must say the same, bit for bit.
fn survives_a_round_trip(from: &Device, to: &Device, name: &str) -> Outcome {
    let folder = Folder::new(name)?;
    let path = folder.path().join("model.safetensors");
    let setup = Setup::SMALL;
    let model = setup.model(21)?;
    let parameters = model.initialize(from)?;
    Checkpoint::save(&path, &model, &parameters, &metadata())?;
    let loaded = Checkpoint::load(&path, to)?;
    assert_eq!(loaded.model.config(), model.config());
    assert_eq!(loaded.metadata, metadata());
    assert_eq!(loaded.parameters.device(), to);
    expect_same_bits("weights", &all_parameters(&parameters)?, &all_parameters(&loaded.parameters)?)?;

    // The loaded model runs, and a second save writes the same file.
    let inputs = Indices::from_slice(to, &[2, 3], &[0, 1, 2, 3, 4, 5])?;
    let (logits, _) = loaded.model.infer(&loaded.parameters, &inputs, &loaded.model.zero_state(to, 3)?)?;
    assert!(logits.download()?.iter().all(|value| value.is_finite()));
    let again = folder.path().join("again.safetensors");
    Checkpoint::save(&again, &loaded.model, &loaded.parameters, &loaded.metadata)?;
    assert_eq!(std::fs::read(&path)?, std::fs::read(&again)?);

    let weights = folder.path().join("weights.safetensors");
    save_weights(&weights, &parameters)?;
    let mut other = setup.model(22)?.initialize(to)?;
    assert_ne!(all_parameters(&other)?, all_parameters(&parameters)?);
    load_weights(&weights, &mut other)?;
    expect_same_bits("weights alone", &all_parameters(&parameters)?, &all_parameters(&other)?)
}

fn checkpoints_move_between_the_cpu_and_any_device(device: &Device) -> Outcome {
    survives_a_round_trip(&Device::cpu(), device, "to")?;
    survives_a_round_trip(device, &Device::cpu(), "from")
}

/// Fails unless `result` is an [`Error::Checkpoint`] of `path` whose message has all `parts`.
fn expect_refused<T>(path: &Path, result: Result<T>, parts: &[&str]) {
    refuses!(Checkpoint, result, all [&[path.to_string_lossy().as_ref()], parts].concat());
}

fn files_cut_short_are_refused_at_every_length() -> Outcome {
    let folder = Folder::new("cut")?;
    let whole = folder.path().join("whole.safetensors");
    let mut model = Model::new(23);
    model.add("head", Linear::new(3, 4))?;
    let mut parameters = model.initialize(&Device::cpu())?;
    Checkpoint::save(&whole, &model, &parameters, &metadata())?;
    let bytes = std::fs::read(&whole)?;
    let before = all_parameters(&parameters)?;
    let path = folder.path().join("cut.safetensors");
    for length in 0..bytes.len() {
        std::fs::write(&path, &bytes[..length])?;
        expect_refused(&path, Checkpoint::load(&path, &Device::cpu()), &["safetensors"]);
        expect_refused(&path, load_weights(&path, &mut parameters), &["safetensors"]);
    }
    std::fs::write(&path, [&bytes[..], b"more"].concat())?;
    expect_refused(&path, Checkpoint::load(&path, &Device::cpu()), &["safetensors"]);
    expect_same_bits("untouched", &before, &all_parameters(&parameters)?)
}

fn garbage_is_refused() -> Outcome {
    let folder = Folder::new("garbage")?;
    let path = folder.path().join("garbage");
    let stream = refrain::random::Stream::new(24, 0);
    let noise: Vec<u8> = (0..4096).map(|index| stream.bits(index) as u8).collect();
    let huge = [u64::MAX.to_le_bytes().to_vec(), noise.clone()].concat();
    let no_json = [64u64.to_le_bytes().to_vec(), noise.clone()].concat();
    let text = b"GIF89a is another format, and long enough for a header".to_vec();
    for bytes in [noise, huge, no_json, text, vec![0; 4096]] {
        std::fs::write(&path, &bytes)?;
        expect_refused(&path, Checkpoint::load(&path, &Device::cpu()), &["safetensors"]);
    }
    Ok(())
}

/// Every single byte of a small file flipped: an error or a model, never a panic.
fn no_flipped_byte_panics() -> Outcome {
    let folder = Folder::new("flipped")?;
    let path = folder.path().join("model.safetensors");
    let mut model = Model::new(25);
    model.add("head", Linear::new(2, 2))?;
    Checkpoint::save(&path, &model, &model.initialize(&Device::cpu())?, &metadata())?;
    let bytes = std::fs::read(&path)?;
    let mut refused = 0;
    for place in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[place] ^= 0x15;
        std::fs::write(&path, &flipped)?;
        match Checkpoint::load(&path, &Device::cpu()) {
            Ok(loaded) => assert_eq!(loaded.parameters.count(), 6, "byte {place} changed the model's size"),
            Err(Error::Checkpoint { .. }) => refused += 1,
            Err(other) => return Err(Failed::from(format!("byte {place}: {other:?}"))),
        }
    }
    assert!(refused > 100, "only {refused} of {} flips were noticed", bytes.len());
    Ok(())
}

/// A model of one linear layer `head`, with two weights and a bias.
pub(crate) fn head(device: &Device) -> Result<(Model, Parameters)> {
    let mut model = Model::new(26);
    model.add("head", Linear::new(2, 1))?;
    let parameters = model.initialize(device)?;
    Ok((model, parameters))
}

fn tensors_that_do_not_fit_are_named() -> Outcome {
    let folder = Folder::new("misfits")?;
    let path = folder.path().join("weights.safetensors");
    let (_, mut parameters) = head(&Device::cpu())?;
    let before = all_parameters(&parameters)?;
    let weight: (&str, &[usize], &[f32]) = ("head.weight", &[1, 2], &[1.0, 2.0]);
    let bias: (&str, &[usize], &[f32]) = ("head.bias", &[1], &[3.0]);
    let mut integers = safetensors(&[weight, bias], None);
    for place in 0..integers.len() - 3 {
        if &integers[place..place + 3] == b"F32" {
            integers[place] = b'I';
        }
    }
    let cases: [(Vec<u8>, &[&str]); 4] = [
        (safetensors(&[weight], None), &["no tensor `head.bias`"]),
        (
            safetensors(&[("head.weight", &[2, 1], &[1.0, 2.0]), bias], None),
            &["`head.weight`", "[1, 2]", "[2, 1]"],
        ),
        (safetensors(&[weight, bias, ("tail.bias", &[1], &[0.0])], None), &["`tail.bias`", "does not have"]),
        (integers, &["F32 or F64", "I32"]),
    ];
    for (bytes, parts) in cases {
        std::fs::write(&path, bytes)?;
        expect_refused(&path, load_weights(&path, &mut parameters), parts);
        expect_same_bits("untouched", &before, &all_parameters(&parameters)?)?;
    }
    std::fs::write(&path, safetensors(&[bias, weight], None))?;
    load_weights(&path, &mut parameters)?;
    assert_eq!(all_parameters(&parameters)?, [1.0, 2.0, 3.0]);
    Ok(())
}

fn foreign_and_newer_checkpoints_are_errors() -> Outcome {
    let folder = Folder::new("foreign")?;
    let path = folder.path().join("model.safetensors");
    let weight: (&str, &[usize], &[f32]) = ("head.weight", &[1, 2], &[1.0, 2.0]);
    let description = |text: &str| format!("{{\"refrain\":{text:?}}}");
    let model = |inputs: usize, outputs: usize| {
        let layer = format!(r#"{{"layer":"linear","inputs":{inputs},"outputs":{outputs},"bias":false}}"#);
        format!(r#"{{"seed":1,"layers":[["head",{layer}]]}}"#)
    };
    let versioned = |version: u32, model: &str| {
        description(&format!("{{\"version\":{version},\"model\":{model},\"metadata\":{{}}}}"))
    };
    let cases: [(Option<String>, &[&str]); 6] = [
        (None, &["no refrain model", "load_weights"]),
        (Some("{\"format\":\"pt\"}".to_owned()), &["no refrain model"]),
        (Some(description("no json")), &["invalid model description"]),
        (Some(versioned(999, "\"something new\"")), &["newer version", "999"]),
        (Some(versioned(1, "\"something else\"")), &["invalid model description"]),
        (Some(versioned(1, &model(0, 1))), &["not describe a valid model", "inputs", "not 0"]),
    ];
    for (metadata, parts) in cases {
        std::fs::write(&path, safetensors(&[weight], metadata.as_deref()))?;
        expect_refused(&path, Checkpoint::load(&path, &Device::cpu()), parts);
    }
    let load = |inputs, outputs| {
        let description = versioned(1, &model(inputs, outputs));
        std::fs::write(&path, safetensors(&[weight], Some(&description))).expect("a folder of its own");
        Checkpoint::load(&path, &Device::cpu())
    };
    assert_eq!(all_parameters(&load(2, 1)?.parameters)?, [1.0, 2.0]);
    // A description of a model that no memory holds, beside a tensor of two numbers.
    expect_refused(&path, load(1 << 24, 1 << 24), &["not describe a valid model"]);
    // A description of 2^30 weights is a valid one, but not of this file: nothing of that size is allocated.
    expect_refused(&path, load(1 << 24, 64), &["`head.weight`", "[64, 16777216]", "[1, 2]"]);
    Ok(())
}

/// Fails unless `result` is an [`Error::Io`] of `path`.
fn expect_io<T>(path: &Path, result: Result<T>) {
    refuses!(Io, result, path.to_string_lossy().as_ref());
}

fn paths_that_are_no_files_are_errors() -> Outcome {
    let folder = Folder::new("paths")?;
    let (model, mut parameters) = head(&Device::cpu())?;
    for path in [folder.path().join("missing.safetensors"), folder.path().to_owned()] {
        expect_io(&path, Checkpoint::load(&path, &Device::cpu()));
        expect_io(&path, load_weights(&path, &mut parameters));
    }
    let orphan = folder.path().join("missing/model.safetensors");
    for path in [orphan, folder.path().to_owned(), Path::new("/").to_owned(), Path::new("").to_owned()] {
        expect_io(&path, Checkpoint::save(&path, &model, &parameters, &metadata()));
        expect_io(&path, save_weights(&path, &parameters));
    }
    Ok(())
}

fn a_failed_write_leaves_everything_as_it_was() -> Outcome {
    let folder = Folder::new("failed")?;
    let (model, parameters) = head(&Device::cpu())?;
    // A folder with content stands where the file should go: the new file is written, but cannot take its place.
    let target = folder.path().join("model.safetensors");
    std::fs::create_dir(&target)?;
    std::fs::write(target.join("old"), "old content")?;
    expect_io(&target, Checkpoint::save(&target, &model, &parameters, &metadata()));
    expect_io(&target, write_atomically(&target, b"new"));
    assert_eq!(std::fs::read(target.join("old"))?, b"old content");
    let names = |path: &Path| -> std::io::Result<Vec<_>> {
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect()
    };
    assert_eq!(names(folder.path())?, ["model.safetensors"], "no half-written file is left behind");

    // A write that fails before it begins: parameters of another model.
    let file = folder.path().join("kept.safetensors");
    Checkpoint::save(&file, &model, &parameters, &metadata())?;
    let before = std::fs::read(&file)?;
    let (other, _) = head(&Device::cpu())?;
    refuses!(ModelMismatch, Checkpoint::save(&file, &other, &parameters, &metadata()), "");
    assert_eq!(std::fs::read(&file)?, before);
    // A write that succeeds replaces all of the old content, and leaves nothing else.
    write_atomically(&file, b"short")?;
    assert_eq!(std::fs::read(&file)?, b"short");
    assert_eq!(names(folder.path())?.len(), 2);
    Ok(())
}

/// The names of `torch.nn.RNN(2, 3, num_layers=2)` as `self.rnn` of a module, beside a linear `self.head`.
fn a_pytorch_state_dict_loads_as_it_is() -> Outcome {
    let names: [(&str, &[usize]); 10] = [
        ("rnn.weight_ih_l0", &[3, 2]),
        ("rnn.weight_hh_l0", &[3, 3]),
        ("rnn.bias_ih_l0", &[3]),
        ("rnn.bias_hh_l0", &[3]),
        ("rnn.weight_ih_l1", &[3, 3]),
        ("rnn.weight_hh_l1", &[3, 3]),
        ("rnn.bias_ih_l1", &[3]),
        ("rnn.bias_hh_l1", &[3]),
        ("head.weight", &[4, 3]),
        ("head.bias", &[4]),
    ];
    let device = Device::cpu();
    let data: Vec<Vec<f32>> = (0..)
        .zip(&names)
        .map(|(stream, (_, shape))| random(&device, 70 + stream, shape, 1.0)?.download())
        .collect::<Result<_>>()?;
    let tensors: Vec<_> =
        names.iter().zip(&data).map(|((name, shape), data)| (*name, *shape, data.as_slice())).collect();
    let folder = Folder::new("pytorch")?;
    let path = folder.path().join("state_dict.safetensors");
    std::fs::write(&path, safetensors(&tensors, Some("{\"format\":\"pt\"}")))?;

    let mut model = Model::new(27);
    model.add("rnn", Rnn::new(Cell::tanh(), 2, 3).layers(2))?;
    model.add("head", Linear::new(3, 4))?;
    let mut parameters = model.initialize(&device)?;
    assert_eq!(parameters.names().collect::<Vec<_>>(), names.map(|(name, _)| name));
    load_weights(&path, &mut parameters)?;
    for ((name, shape), data) in names.iter().zip(&data) {
        let view = parameters.view(name)?;
        assert_eq!(view.shape().dimensions(), *shape);
        expect_same_bits(name, &view.download()?, data)?;
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        files_cut_short_are_refused_at_every_length,
        garbage_is_refused,
        no_flipped_byte_panics,
        tensors_that_do_not_fit_are_named,
        foreign_and_newer_checkpoints_are_errors,
        paths_that_are_no_files_are_errors,
        a_failed_write_leaves_everything_as_it_was,
        a_pytorch_state_dict_loads_as_it_is,
    );
    on_devices!(suite, checkpoints_move_between_the_cpu_and_any_device);
}
