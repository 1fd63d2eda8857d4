//! Input that asks for more than it is worth: small files that describe huge models, shapes whose product does not fit a
//! word, files of zeros that take no room on the disk, paths that are no files. All are refused, in time and memory
//! proportional to the file.

use std::fs::{self, File};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use refrain::check::golden::{self, Status};
use refrain::io::{
    Checkpoint, HostArray, KerasClass, KerasConfig, KerasLayer, KerasVersion, KerasWeights, Metadata,
    OnnxAttributes, OnnxNode, OnnxTensors, load_layer_weights, load_weights, read_file, write_atomically,
};
use refrain::nn::{Cell, Embedding, LayerConfig, Linear, Model, OneHot, Rnn};
use refrain::tuning::Tuning;
use refrain::{Device, Error, Result, Tensor};

use crate::adapters::{Outcome, Suite, on_cpu};
use crate::files::head;
use crate::imports::expect_refused;
use crate::support::{Folder, card, root};

/// A safetensors file of metadata alone.
fn without_tensors(attributes: &[(&str, &str)]) -> Vec<u8> {
    let pairs: Vec<String> = attributes.iter().map(|(key, value)| format!("{key:?}:{value:?}")).collect();
    with_header(&format!("{{\"__metadata__\":{{{}}}}}", pairs.join(",")))
}

fn with_header(header: &str) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
}

/// What `run` returns; fails if it takes longer than `limit`.
fn within<T>(limit: Duration, what: &str, run: impl FnOnce() -> T) -> std::result::Result<T, Failed> {
    let start = Instant::now();
    let value = run();
    let taken = start.elapsed();
    if taken <= limit {
        Ok(value)
    } else {
        Err(Failed::from(format!("{what} took {taken:?}, more than {limit:?}")))
    }
}

const QUICK: Duration = Duration::from_millis(500);

fn a_short_description_of_millions_of_parameters_is_refused_at_once() -> Outcome {
    let folder = Folder::new("stacks")?;
    let path = folder.path().join("stacks.safetensors");
    let stack = |index: usize| {
        format!(
            r#"["s{index}",{{"layer":"rnn","cell":{{"vanilla":"tanh"}},"inputs":1,"hidden":1,"layers":1024,"bias":true,"directions":"both","learned_initial_state":true}}]"#
        )
    };
    let stacks: Vec<String> = (0..1000).map(stack).collect();
    let description =
        format!(r#"{{"version":1,"model":{{"seed":1,"layers":[{}]}},"metadata":{{}}}}"#, stacks.join(","));
    fs::write(&path, without_tensors(&[("refrain", &description)]))?;
    assert!(fs::metadata(&path)?.len() < 220_000);
    let refused = within(QUICK, "refusing it", || Checkpoint::load(&path, &Device::cpu()).map(|_| ()))?;
    // The description itself is understood: what is refused is what it describes.
    expect_refused(refused, &["no tensor `s0.weight_ih_l0`"])
}

fn a_hundred_thousand_layers_take_time_in_proportion() -> Outcome {
    let folder = Folder::new("layers")?;
    let path = folder.path().join("layers.safetensors");
    let mut model = Model::new(1);
    for index in 0..100_000 {
        model.add(&format!("l{index}"), Linear::new(1, 1).without_bias())?;
    }
    let parameters = model.initialize(&Device::cpu())?;
    Checkpoint::save(&path, &model, &parameters, &Metadata::new())?;
    // A tenth of that on an idle machine; a name sought among all others for each layer took minutes.
    let limit = Duration::from_secs(20);
    let loaded = within(limit, "loading", || Checkpoint::load(&path, &Device::cpu()))??;
    assert_eq!(loaded.parameters.count(), 100_000);
    Ok(())
}

fn golden_cases_without_values_are_refused_before_anything_is_made() -> Outcome {
    let folder = Folder::new("empty-cases")?;
    let training = without_tensors(&[
        ("family", "torch_training"),
        ("kind", "training"),
        ("cell", "lstm"),
        ("steps", "1"),
        ("sequence", "1"),
        ("batch", "1"),
        ("vocabulary", "2"),
        ("embedding", "1"),
        ("hidden", "16000"),
        ("layers", "1"),
        ("optimizer", "SGD"),
        ("lr", "0.1"),
    ]);
    // x [1, 1, 1] and a W_hh of [64000, 0]: the rows of an LSTM of 16,000 units, and no values.
    let stack = with_header(
        r#"{"__metadata__":{"family":"torch_lstm","kind":"lstm","layers":"1","bias":"false"},"x":{"dtype":"F32","shape":[1,1,1],"data_offsets":[0,4]},"weight_hh_l0":{"dtype":"F32","shape":[64000,0],"data_offsets":[4,4]}}"#,
    );
    for (name, bytes) in [("training", training), ("stack", [stack, vec![0; 4]].concat())] {
        let path = folder.path().join(format!("{name}.safetensors"));
        fs::write(&path, bytes)?;
        let report = within(QUICK, name, || golden::replay(&path, &Device::cpu()))?;
        let message = report.message.unwrap_or_default();
        assert_eq!(report.status, Status::Error, "{name}: {message}");
        assert!(message.contains("has no tensor") || message.contains("must have the shape"), "{message}");
    }
    Ok(())
}

/// `check --cases` shows a case file that asks for the impossible as one error, and goes on.
fn a_case_of_absurd_sizes_is_one_error_and_the_others_run() -> Outcome {
    let folder = Folder::new("absurd-cases")?;
    let onnx = |hidden: &str| {
        let attributes = format!(r#"{{\"hidden_size\":{hidden}}}"#);
        let tensor =
            |name: &str| format!(r#""{name}":{{"dtype":"F32","shape":[1,0,1],"data_offsets":[0,0]}}"#);
        with_header(&format!(
            r#"{{"__metadata__":{{"family":"onnx_node","op":"LSTM","kind":"lstm","outputs":"[\"Y\"]","attributes":"{attributes}"}},{},{},{}}}"#,
            tensor("X"),
            tensor("W"),
            tensor("R")
        ))
    };
    for (name, hidden) in [("a", "4611686018427387904"), ("b", "18446744073709551615"), ("c", "-1")] {
        fs::write(folder.path().join(format!("{name}.safetensors")), onnx(hidden))?;
    }
    fs::copy(
        root().join("tests/fixtures/torch_linear/torch_linear_seq.safetensors"),
        folder.path().join("d.safetensors"),
    )?;
    let reports: Vec<_> =
        golden::files(folder.path())?.iter().map(|path| golden::replay(path, &Device::cpu())).collect();
    let statuses: Vec<Status> = reports.iter().map(|report| report.status).collect();
    assert_eq!(statuses, [Status::Error, Status::Error, Status::Error, Status::Pass], "{reports:?}");
    Ok(())
}

/// Every reader of the crate on `path`, by name; each must refuse it.
fn refused_by_every_reader(path: &Path) -> std::result::Result<Vec<(&'static str, String)>, Failed> {
    let (_, mut parameters) = head(&Device::cpu())?;
    let golden = golden::replay(path, &Device::cpu());
    let golden = match golden.status {
        Status::Error | Status::Unsupported => Err(golden.message.unwrap_or_default()),
        other => Ok(format!("{other:?}")),
    };
    let text = |result: Result<()>| result.map(|()| String::new()).map_err(|error| error.to_string());
    let results = [
        ("checkpoint", text(Checkpoint::load(path, &Device::cpu()).map(|_| ()))),
        ("weights", text(load_weights(path, &mut parameters))),
        ("layer weights", text(load_layer_weights(path, "head", &mut parameters))),
        ("golden case", golden),
        ("tuning", text(Tuning::load(path, &card()).map(|_| ()))),
        ("text", text(read_file(path, 1 << 20).map(|_| ()))),
    ];
    results
        .into_iter()
        .map(|(name, result)| match result {
            Err(message) => Ok((name, message)),
            Ok(found) => Err(Failed::from(format!("{name}: {} was taken: {found}", path.display()))),
        })
        .collect()
}

fn large_files_of_zeros_are_refused_by_their_headers() -> Outcome {
    const SIZE: u64 = 6 << 30;
    let folder = Folder::new("sparse")?;
    let zeros = folder.path().join("zeros.safetensors");
    File::create(&zeros)?.set_len(SIZE)?;
    within(QUICK, "refusing zeros", || refused_by_every_reader(&zeros))??;
    // The same with a header of as many zeros as one may have, and with one that is right.
    for header in [
        with_header(&" ".repeat(64)),
        with_header(&format!(
            r#"{{"__metadata__":{{"family":"torch_linear"}},"x":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{}]}}}}"#,
            SIZE / 4,
            SIZE
        )),
    ] {
        let path = folder.path().join("header.safetensors");
        fs::write(&path, &header)?;
        File::options().write(true).open(&path)?.set_len(header.len() as u64 + SIZE)?;
        within(QUICK, "refusing a header and zeros", || refused_by_every_reader(&path))??;
    }
    // A header that would be there, but is longer than the format allows: not a byte of it is read.
    let path = folder.path().join("long.safetensors");
    fs::write(&path, SIZE.to_le_bytes())?;
    File::options().write(true).open(&path)?.set_len(8 + SIZE)?;
    let load = || Checkpoint::load(&path, &Device::cpu()).map(|_| ());
    let refused = within(QUICK, "refusing a long header", load)?;
    expect_refused(refused, &[&format!("a header of {SIZE} bytes does not fit")])?;
    Ok(())
}

/// Opening a named pipe without a writer would block; so could a device.
fn paths_that_are_no_regular_files_are_refused_and_not_waited_for() -> Outcome {
    let folder = Folder::new("pipes")?;
    let pipe = folder.path().join("pipe.safetensors");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status()?.success());
    let (sender, receiver) = mpsc::channel();
    let in_thread = pipe.clone();
    // A thread that blocks for ever is left behind, for the test to end.
    std::thread::spawn(move || {
        let messages = refused_by_every_reader(&in_thread);
        let cases = golden::files(in_thread.parent().unwrap_or(&in_thread));
        let saved = write_atomically(&in_thread, b"new");
        sender.send((messages, cases.map(|cases| cases.len()), saved)).ok();
    });
    let (messages, cases, saved) = receiver
        .recv_timeout(Duration::from_secs(20))
        .map_err(|_| Failed::from("a reader of the named pipe still waits".to_owned()))?;
    for (reader, message) in messages? {
        assert!(message.contains("is a named pipe, not a regular file"), "{reader}: {message}");
    }
    assert_eq!(cases?, 1);
    expect_refused(saved, &["is a named pipe, not a regular file"])?;
    for (path, kind) in [(folder.path(), "a folder"), (Path::new("/dev/zero"), "a device")] {
        for (reader, message) in refused_by_every_reader(path)? {
            assert!(message.contains(&format!("is {kind}, not a regular file")), "{reader}: {message}");
        }
    }
    Ok(())
}

/// Sizes at which a careless product wraps to zero, to a small number, or to a huge one.
const SIZES: [usize; 9] = [0, 1, 2, 1 << 31, 1 << 32, 1 << 62, (1 << 62) + 1, usize::MAX / 2 + 1, usize::MAX];

fn arrays_whose_shapes_overflow_are_refused_by_every_importer() -> Outcome {
    let mut refused = 0;
    for values in [&[][..], &[0.5; 8][..]] {
        for one in SIZES {
            for two in SIZES {
                for class in [KerasClass::SimpleRnn, KerasClass::Lstm, KerasClass::Gru] {
                    let shapes = [[one, two], [two, one], [one, one]];
                    for recurrent in &shapes {
                        let weights = KerasWeights::new(
                            HostArray::new(&shapes[0], values),
                            HostArray::new(recurrent, values),
                        );
                        let config = KerasConfig::new(class, KerasVersion::V3);
                        refused += usize::from(KerasLayer::new(&config, &weights).is_err());
                        let weights = weights.bias(HostArray::new(&shapes[1], values));
                        refused += usize::from(KerasLayer::new(&config, &weights).is_err());
                    }
                }
                for operator in ["RNN", "GRU", "LSTM"] {
                    let attributes = OnnxAttributes { hidden_size: one, ..OnnxAttributes::default() };
                    let Ok(node) = OnnxNode::new(operator, attributes) else { continue };
                    let (w, r, b) = ([1, one, two], [1, two, one], [1, two]);
                    let tensors = OnnxTensors::new(HostArray::new(&w, values), HostArray::new(&r, values));
                    for tensors in [
                        tensors,
                        tensors.bias(HostArray::new(&b, values)),
                        tensors.peepholes(HostArray::new(&b, values)),
                    ] {
                        refused += usize::from(node.layers(&tensors).is_err());
                    }
                }
            }
        }
    }
    // All but the few layers of one unit that eight values are enough for.
    assert!(refused > 3800, "only {refused} were refused");
    // Four gates of so many units wrap to four rows, and so does each array to four values.
    const UNITS: usize = (1 << 62) + 1;
    let values = [0.5; 4];
    let kernel = HostArray::new(&[UNITS, 4], &values);
    let config = KerasConfig::new(KerasClass::Lstm, KerasVersion::V3);
    expect_refused(
        KerasLayer::new(&config, &KerasWeights::new(kernel, kernel)),
        &["recurrent_kernel", "2^31"],
    )?;
    let node = OnnxNode::new("LSTM", OnnxAttributes { hidden_size: UNITS, ..OnnxAttributes::default() })?;
    let (w, r) = (HostArray::new(&[1, 4, 1], &values), HostArray::new(&[1, 4, UNITS], &values));
    expect_refused(node.layers(&OnnxTensors::new(w, r)), &["hidden_size", "2^31"])
}

fn layers_of_absurd_sizes_are_refused_and_not_counted_wrong() -> Outcome {
    let mut refused = 0;
    for one in SIZES {
        for two in SIZES {
            let stack = || Rnn::new(Cell::Lstm, one, two);
            let layers: [LayerConfig; 11] = [
                Embedding::new(one, two).into(),
                OneHot::new(one).into(),
                Linear::new(one, two).into(),
                stack().into(),
                stack().layers(one).bidirectional().into(),
                stack().projection(one).residual().into(),
                stack().truncated(one).into(),
                stack().windowed(one).into(),
                stack().truncated_every(one, two).into(),
                stack().checkpointed(one).layer_norm().into(),
                Rnn::new(Cell::Gru, 1, 1).layers(two).learned_initial_state().into(),
            ];
            // What is asked of a description alone.
            stack().bidirectional().outputs();
            for layer in layers {
                let mut model = Model::new(1);
                match model.add("layer", layer) {
                    Err(_) => refused += 1,
                    Ok(_) => {
                        model.summary().to_string();
                        model.cost(1, 1)?;
                        // A window of the most places, of which few layers' tensors have at most 2^31 elements.
                        match model.cost(1 << 16, 1 << 15) {
                            Ok(_) | Err(Error::Shape { .. }) => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
            }
        }
    }
    assert!(refused > 700, "only {refused} were refused");
    let device = Device::cpu();
    let mut model = Model::new(1);
    let rnn = model.add("rnn", Rnn::new(Cell::Lstm, 1, 2))?;
    for size in [0, 1 << 31, 1 << 62, usize::MAX] {
        expect_refused(rnn.zero_state(&device, size).map(|_| ()), &["state"])
            .or_else(|_| expect_refused(rnn.zero_state(&device, size).map(|_| ()), &["shape"]))?;
        assert!(model.cost(size, 2).is_err(), "{size}");
    }
    let x = Tensor::zeros(&device, &[2, 2])?;
    assert!(x.reshape(&[1 << 63, 8]).is_err());
    assert!(Tensor::zeros(&device, &[1 << 32, 1 << 32]).is_err());
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        a_short_description_of_millions_of_parameters_is_refused_at_once,
        a_hundred_thousand_layers_take_time_in_proportion,
        golden_cases_without_values_are_refused_before_anything_is_made,
        a_case_of_absurd_sizes_is_one_error_and_the_others_run,
        large_files_of_zeros_are_refused_by_their_headers,
        arrays_whose_shapes_overflow_are_refused_by_every_importer,
        layers_of_absurd_sizes_are_refused_and_not_counted_wrong,
    );
    let pipes = concat!(module_path!(), "::paths_that_are_no_regular_files_are_refused_and_not_waited_for");
    suite.cpu_if(
        pipes,
        Path::new("/dev/zero").exists(),
        paths_that_are_no_regular_files_are_refused_and_not_waited_for,
    );
}
