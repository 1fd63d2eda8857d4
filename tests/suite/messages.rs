//! What errors say: the cause, the place, and what would be right.

use refrain::io::{Checkpoint, Metadata, load_layer_weights, load_weights, save_layer_weights, save_weights};
use refrain::loss::cross_entropy;
use refrain::nn::{Cell, Embedding, Linear, Model, Rnn, Sequences};
use refrain::{AdapterKind, Device, Error, GpuOptions, Indices};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu};
use crate::imports::expect_refused;
use crate::support::{Folder, random};

fn a_missing_hardware_gpu_and_a_wrong_name_are_different_errors() -> Outcome {
    let listed = Device::list();
    let hardware = listed.iter().any(|found| found.kind != AdapterKind::Software);
    for wanted in ["gpu", "GPU", " gpu "] {
        match Device::named(wanted) {
            Ok(device) => assert!(hardware && device.adapter_kind() != Some(AdapterKind::Software)),
            Err(error @ Error::NoHardware { .. }) => {
                let message = error.to_string();
                assert!(!hardware && message.starts_with("no hardware GPU was found"), "{message}");
                for software in &listed {
                    assert!(message.contains("software GPU"), "{message}");
                    assert!(message.contains(&format!("`{}`", software.name)), "{message}");
                }
                assert!(message.contains("`cpu`") && !message.contains("gpu:"), "{message}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn errors_inside_a_model_name_the_layer() -> Outcome {
    let device = Device::cpu();
    let mut model = Model::new(1);
    model.add("encoder", Rnn::new(Cell::Gru, 3, 8))?;
    let decoder = model.add("decoder", Rnn::new(Cell::Lstm, 8, 4))?;
    let head = model.add("head", Linear::new(5, 2))?;
    let parameters = model.initialize(&device)?;
    let x = random(&device, 1, &[5, 4, 3], 1.0)?;
    let state = model.zero_state(&device, 4)?;
    let narrow = random(&device, 2, &[5, 4, 2], 1.0)?;
    let layers = ["layer `encoder`: x", "layer `head`: x"];
    expect_refused(model.infer(&parameters, &narrow, &state), &layers[..1])?;
    // What the head reads is what the decoder computes: 4 features, and not 5.
    expect_refused(model.infer(&parameters, &x, &state), &layers[1..])?;
    expect_refused(model.forward(&parameters, &x, &state), &layers[1..])?;
    expect_refused(head.infer(&parameters, &x), &layers[1..])?;
    expect_refused(decoder.zero_state(&device, 0), &["layer `decoder`: "])?;
    let wide = random(&device, 3, &[5, 4, 8], 1.0)?;
    let (_, _, trace) = decoder.forward(&parameters, &wide, &decoder.zero_state(&device, 4)?)?;
    let refused = trace.backward(&wide, None, &mut parameters.zero_gradients()?);
    expect_refused(refused, &["layer `decoder`: d_output", "[5, 4, 4]", "[5, 4, 8]"])?;

    let mut model = Model::new(1);
    model.add("characters", Embedding::new(7, 3))?;
    let parameters = model.initialize(&device)?;
    let tokens = Indices::from_slice(&device, &[1, 2], &[6, 7])?;
    let refused = model.infer(&parameters, &tokens, &model.zero_state(&device, 2)?);
    expect_refused(refused, &["layer `characters`: ", "index 7"])?;
    Ok(())
}

fn a_limit_that_is_exceeded_names_layer_and_parameter(adapter: &Adapter) -> Outcome {
    const BINDING_BYTES: u64 = 4096;
    let options = GpuOptions { binding_bytes: Some(BINDING_BYTES), ..GpuOptions::default() };
    let device = adapter.open_with(&options)?;
    let mut model = Model::new(1);
    model.add("rnn", Rnn::new(Cell::tanh(), 3, 40).layers(2))?;
    let parameters = model.initialize(&device)?;
    let x = random(&device, 1, &[2, 1, 3], 1.0)?;
    // 1,600 numbers of W_hh, where 1,024 fit at most.
    let refused = model.infer(&parameters, &x, &model.zero_state(&device, 1)?);
    expect_refused(refused, &["layer `rnn`: ", "`rnn.weight_hh_l0`", "needs 1600"])?;
    Ok(())
}

fn parameters_beyond_the_largest_buffer_name_the_largest(adapter: &Adapter) -> Outcome {
    const INPUTS: usize = 1 << 14;
    let device = adapter.open()?;
    let outputs = adapter.summary().max_buffer_bytes as usize / 4 / INPUTS + 1;
    let mut model = Model::new(1);
    model.add("rnn", Rnn::new(Cell::tanh(), 3, INPUTS / 64))?;
    model.add("head", Linear::new(INPUTS, outputs))?;
    let refused = model.initialize(&device);
    let largest = format!("`head.weight` [{outputs}, {INPUTS}] is the largest");
    expect_refused(refused, &["the model's parameters", &largest])
}

fn a_batch_first_input_is_an_error_that_names_the_layout() -> Outcome {
    let device = Device::cpu();
    let (steps, batch) = (5, 4);
    let mut model = Model::new(1);
    let rnn = model.add("rnn", Rnn::new(Cell::Gru, 3, 8))?;
    let parameters = model.initialize(&device)?;
    let state = rnn.zero_state(&device, batch)?;
    let swapped = random(&device, 1, &[batch, steps, 3], 1.0)?;
    let layout =
        ["layer `rnn`: x: ", "[time, batch, inputs]", "batch of 4", "found [4, 5, 3]", "time comes first"];
    expect_refused(rnn.infer(&parameters, &swapped, &state), &layout)?;
    expect_refused(rnn.forward(&parameters, &swapped, &state), &layout)?;
    // Another batch is not told so.
    let other = random(&device, 1, &[steps, 7, 3], 1.0)?;
    let refused = rnn.infer(&parameters, &other, &state);
    let Err(refused) = refused else { return Err("another batch was taken".into()) };
    let refused = refused.to_string();
    assert!(refused.contains("layer `rnn`: the state: hidden"), "{refused}");
    assert!(!refused.contains("time comes first"), "{refused}");

    let x = random(&device, 1, &[steps, batch, 3], 1.0)?;
    let marks = Indices::from_slice(&device, &[batch, steps], &[0; 20])?;
    let resets = Sequences::whole().resets(&marks);
    let refused = rnn.infer_sequences(&parameters, &x, &state, resets);
    expect_refused(refused, &["resets: expected [5, 4], found [4, 5]", "time comes first"])?;
    let (y, _, trace) = rnn.forward(&parameters, &x, &state)?;
    let d_y = random(&device, 1, &[batch, steps, 8], 1.0)?;
    let refused = trace.backward(&d_y, None, &mut parameters.zero_gradients()?);
    expect_refused(refused, &["d_output: expected [5, 4, 8], found [4, 5, 8]", "time comes first"])?;
    expect_refused(cross_entropy(&y, &marks), &["labels", "found [4, 5]", "time comes first"])?;
    Ok(())
}

fn files_of_another_kind_are_named_by_their_first_bytes() -> Outcome {
    let folder = Folder::new("kinds")?;
    let mut model = Model::new(1);
    model.add("head", Linear::new(2, 3))?;
    let mut parameters = model.initialize(&Device::cpu())?;
    let mut torch = b"PK\x03\x04".to_vec();
    torch.extend([0; 22]);
    torch.extend([16, 0, 0, 0]);
    torch.extend(b"archive/data.pkl");
    for (content, parts) in [
        (b"".as_slice(), ["is empty, not a safetensors file", ""]),
        (b"<svg width=\"900\" height=\"540\">", ["is an SVG image", "loss curve"]),
        (&torch, ["is a PyTorch file of `torch.save` (.pt)", "safetensors.torch.save_file"]),
        (b"\x89HDF\r\n\x1a\n\0\0\0\0\0\0", ["is an HDF5 file, as Keras writes (.h5)", "safetensors.numpy"]),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", ["is an ONNX model", "recurrent nodes"]),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", ["is compressed by gzip", "decompress it"]),
        (b"{\"layers\": []}", ["is JSON, not a safetensors file", ""]),
        (b"the rain in spain", ["is text, not a safetensors file", ""]),
        // A header of 200 bytes that is not there.
        (b"\xc8\0\0\0\0\0\0\0{\"head.weight\":", ["is not a complete safetensors file", "truncated"]),
        // The same behind one that is whole.
        (
            b"\xc8\0\0\0\0\0\0\0{}",
            ["is not a complete safetensors file", "a header of 200 bytes does not fit"],
        ),
        (&[0xff; 64], ["is not a complete safetensors file", "truncated"]),
    ] {
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, content)?;
        let parts = [parts[0], parts[1], "model.safetensors: "];
        expect_refused(Checkpoint::load(&path, &Device::cpu()), &parts)?;
        expect_refused(load_weights(&path, &mut parameters), &parts)?;
    }
    Ok(())
}

fn saving_a_model_waits_once(adapter: &Adapter) -> Outcome {
    let folder = Folder::new(&format!("waits-{}", adapter.summary().index))?;
    let path = folder.path().join("model.safetensors");
    let device = adapter.open()?;
    let mut model = Model::new(1);
    model.add("encoder", Rnn::new(Cell::Lstm, 3, 5).layers(3))?;
    model.add("head", Linear::new(5, 2))?;
    let parameters = model.initialize(&device)?;
    device.synchronize()?;
    let waits = || device.counters().waits;
    let before = waits();
    Checkpoint::save(&path, &model, &parameters, &Metadata::new())?;
    assert_eq!(waits() - before, 1, "a checkpoint");
    save_weights(&path, &parameters)?;
    assert_eq!(waits() - before, 2, "weights");
    save_layer_weights(&path, "head", &parameters)?;
    assert_eq!(waits() - before, 3, "one layer");
    // Each value is in its place.
    let mut other = model.initialize(&device)?;
    let zeros = [0.0; 10];
    other.set("head.weight", &[2, 5], &zeros)?;
    load_layer_weights(&path, "head", &mut other)?;
    save_weights(&path, &parameters)?;
    load_weights(&path, &mut other)?;
    for name in parameters.names() {
        assert_eq!(other.view(name)?.download()?, parameters.view(name)?.download()?, "{name}");
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        a_missing_hardware_gpu_and_a_wrong_name_are_different_errors,
        errors_inside_a_model_name_the_layer,
        a_batch_first_input_is_an_error_that_names_the_layout,
        files_of_another_kind_are_named_by_their_first_bytes,
    );
    on_gpu!(suite, a_limit_that_is_exceeded_names_layer_and_parameter, saving_a_model_waits_once);
    let beyond = concat!(module_path!(), "::parameters_beyond_the_largest_buffer_name_the_largest");
    // More parameters than a model may have would be refused before.
    let testable = |adapter: &Adapter| adapter.summary().max_buffer_bytes < 1 << 32;
    suite.gpu_if(beyond, testable, parameters_beyond_the_largest_buffer_name_the_largest);
}
