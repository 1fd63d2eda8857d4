//! `refrain bench`: what its table, its lines of JSON and its trace hold.

use std::fs;

use refrain::nn::{Cell, Model, Rnn};
use refrain::{Device, Tensor};
use serde_json::Value;

use super::{Folder, json_lines};

/// Sizes that are timed in no time.
const SIZES: &str = "--cell gru --hidden 8 --batch 2 --sequence 4 --runs 3 --seconds 0";
/// The first adapter, whatever it is.
const ADAPTER: &str = "gpu:0";

/// The fields of a line, as programs that read lines of several frameworks expect them.
const FIELDS: [&str; 29] = [
    "framework",
    "version",
    "device",
    "driver",
    "precision",
    "tuning",
    "work",
    "cell",
    "inputs",
    "hidden",
    "batch",
    "sequence",
    "layers",
    "classes",
    "runs",
    "milliseconds",
    "minimum",
    "spread",
    "microseconds_per_step",
    "tokens_per_second",
    "gflops",
    "checksum",
    "gemm_fraction",
    "bandwidth_fraction",
    "dispatches_per_step",
    "host_microseconds_per_step",
    "bytes",
    "formula_bytes",
    "recurrent",
];

fn number(line: &Value, field: &str) -> f64 {
    line[field].as_f64().unwrap_or_else(|| panic!("{field} in {line}"))
}

fn expect_near(line: &Value, field: &str, expected: f64) {
    let found = number(line, field);
    assert!((found - expected).abs() <= 1e-9 * expected, "{field} is {found}, not {expected}, in {line}");
}

/// Fails unless the fields are those of the schema, and those that follow from others do.
fn expect_consistent(line: &Value) {
    let mut found: Vec<&String> = line.as_object().expect("an object").keys().collect();
    let mut expected = FIELDS.to_vec();
    found.sort();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let (steps, batch) = (number(line, "sequence"), number(line, "batch"));
    let seconds = number(line, "milliseconds") / 1e3;
    assert!(0.0 < number(line, "minimum") && number(line, "minimum") <= 1e3 * seconds, "{line}");
    assert!(number(line, "spread") >= 0.0 && number(line, "checksum") > 0.0, "{line}");
    assert!(number(line, "gemm_fraction") > 0.0 && number(line, "bandwidth_fraction") > 0.0, "{line}");
    expect_near(line, "microseconds_per_step", 1e6 * seconds / steps);
    expect_near(line, "tokens_per_second", steps * batch / seconds);
}

#[test]
fn the_table_has_the_device_its_rates_and_a_row_for_each_work() {
    let out = Folder::new("bench-table").succeeded(&format!("bench --device cpu {SIZES}"));
    for part in ["device      cpu", "driver      ", "GEMM  ", "GFLOP/s (512 x 512 x 512", "memory  ", "GB/s"]
    {
        assert!(out.contains(part), "{part} in {out}");
    }
    let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    let rows: Vec<String> = out.lines().skip_while(|line| first(line) != "work").map(first).collect();
    assert_eq!(rows, ["work", "infer", "backward", "train"], "{out}");
}

#[test]
fn a_value_that_says_nothing_of_the_persistent_strategy_is_refused_with_what_does() {
    let folder = Folder::new("bench-persistent");
    if Device::list().is_empty() {
        return;
    }
    let bench = |value: &str| {
        let mut command = folder.command(&format!("bench --device {ADAPTER} --work infer {SIZES}"));
        command.env("REFRAIN_PERSISTENT", value).output().expect("the program starts")
    };
    let refused = bench("maybe");
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{message}");
    for part in ["REFRAIN_PERSISTENT: must be 1 or on, 0 or off, or not be set", "`maybe`"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    for value in ["1", "on", "0", "off", ""] {
        let output = bench(value);
        assert!(output.status.success(), "{value}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn each_shape_and_work_is_a_line_of_json_whose_numbers_agree() {
    let words = "bench --device cpu --json --cell tanh,lstm --hidden 8,9 --batch 2 --sequence 4 --layers 2 \
                 --inputs 5 --classes 7 --work train,infer --runs 3 --seconds 0";
    let lines = json_lines(&Folder::new("bench-json").succeeded(words));
    let shapes: Vec<_> = lines
        .iter()
        .map(|line| (line["cell"].as_str(), line["hidden"].as_u64(), line["work"].as_str()))
        .collect();
    let expected: Vec<_> = ["tanh", "lstm"]
        .into_iter()
        .flat_map(|cell| [8, 9].map(|hidden| (cell, hidden)))
        .flat_map(|(cell, hidden)| ["train", "infer"].map(|work| (Some(cell), Some(hidden), Some(work))))
        .collect();
    assert_eq!(shapes, expected);
    for line in &lines {
        expect_consistent(line);
        assert_eq!((&line["framework"], &line["device"]), (&"refrain".into(), &"cpu".into()));
        assert!(number(line, "runs") >= 3.0);
        for field in ["dispatches_per_step", "host_microseconds_per_step", "bytes"] {
            assert!(line[field].is_null(), "the CPU has no {field}: {line}");
        }
    }
    // Two layers of an LSTM of 8 units over 5 inputs, forward: 2·T·B·4H·(I + H + H + H).
    let infer = lines.iter().find(|line| line["cell"] == "lstm" && line["work"] == "infer").expect("a line");
    let flops = 2.0 * 8.0 * 32.0 * (5.0 + 8.0 + 8.0 + 8.0);
    expect_near(infer, "gflops", flops / number(infer, "milliseconds") / 1e6);
    assert!(infer["formula_bytes"].is_null(), "{infer}");
    // Guessing among 7 classes: ln 7.
    let train = lines.iter().find(|line| line["work"] == "train").expect("a line");
    assert!((number(train, "checksum") - 7.0_f64.ln()).abs() < 0.3, "{train}");
    // At least weights, gradients and two moments: two layers of 8 tanh units over 5 inputs, and a head of 7 classes.
    assert!(
        number(train, "formula_bytes") > 16.0 * (8.0 * (5.0 + 8.0 + 2.0) + 8.0 * (8.0 + 8.0 + 2.0) + 63.0)
    );
}

/// Dispatches that the library takes for the work of [`SIZES`]: forward, and forward and backward.
fn dispatches() -> refrain::Result<[u64; 2]> {
    let device = Device::gpu(ADAPTER)?;
    let mut model = Model::new(1);
    let layer = model.add("rnn", Rnn::new(Cell::Gru, 8, 8))?;
    let parameters = model.initialize(&device)?;
    let (x, state) = (Tensor::zeros(&device, &[4, 2, 8])?, layer.zero_state(&device, 2)?);
    let start = device.counters().dispatches;
    layer.infer(&parameters, &x, &state)?;
    let infer = device.counters().dispatches;
    let (y, _, trace) = layer.forward(&parameters, &x, &state)?;
    let mut gradients = parameters.zero_gradients()?;
    trace.backward(&y, None, &mut gradients)?;
    Ok([infer - start, device.counters().dispatches - infer])
}

#[test]
fn a_gpu_counts_its_dispatches_its_host_time_and_its_memory() {
    let folder = Folder::new("bench-gpu");
    let words = format!("bench --device {ADAPTER} --json {SIZES}");
    if Device::list().is_empty() {
        let message = folder.refused(&words);
        assert!(message.contains("no device matches `gpu:0`"), "{message}");
        return;
    }
    let lines = json_lines(&folder.succeeded(&words));
    assert_eq!(lines.len(), 3);
    let [infer, backward] = dispatches().expect("an adapter");
    let counted: Vec<f64> = lines.iter().map(|line| 4.0 * number(line, "dispatches_per_step")).collect();
    assert_eq!(counted[..2], [infer as f64, backward as f64]);
    assert!(counted[2] > counted[1], "a training step has a head, a loss and an optimizer beside that");
    for line in &lines {
        expect_consistent(line);
        let host = number(line, "host_microseconds_per_step");
        assert!(host > 0.0 && host <= number(line, "microseconds_per_step") * 2.0, "{line}");
        // At least the weights: two matrices of 24 rows by 8, and two biases.
        assert!(number(line, "bytes") >= 4.0 * 24.0 * (8.0 + 8.0 + 2.0), "{line}");
    }
    assert!(number(&lines[2], "bytes") > number(&lines[0], "bytes"));
}

#[test]
fn a_profile_is_a_table_by_kernel_and_a_trace_of_every_call() {
    let folder = Folder::new("bench-profile");
    let words = format!("bench --device {ADAPTER} --work infer --profile trace.json {SIZES}");
    let adapter = Device::list().into_iter().next();
    let Some(adapter) = adapter.filter(|adapter| adapter.features.iter().any(|name| name == "timestamps"))
    else {
        let message = folder.refused(&words);
        assert!(message.contains("no device matches") || message.contains("timestamp"), "{message}");
        return;
    };
    let out = folder.succeeded(&words);
    let trace = fs::read_to_string(folder.file("trace.json")).expect("a trace");
    let trace: Value = serde_json::from_str(&trace).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("a list of events");
    let calls: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
    // Three runs are profiled.
    let [infer, _] = dispatches().expect("an adapter");
    assert_eq!(calls.len() as u64, 3 * infer, "{out}");
    assert_eq!(events[0]["args"]["name"], adapter.name.as_str());
    for call in &calls {
        assert!(number(call, "ts") >= 0.0 && number(call, "dur") >= 0.0, "{call}");
        let name = call["name"].as_str().expect("a name");
        assert!(out.lines().any(|line| line.starts_with(name)), "{name} has no row in {out}");
    }
    assert!(out.contains("calls/run") && out.lines().any(|line| line.starts_with("all ")), "{out}");
}

#[test]
fn the_cpu_has_no_kernels_to_profile() {
    let folder = Folder::new("bench-profile-cpu");
    let message = folder.refused(&format!("bench --device cpu --profile trace.json {SIZES}"));
    assert!(message.contains("profile: the CPU runs no kernels"), "{message}");
    assert!(folder.names().is_empty());
}

#[test]
fn operations_have_a_line_each_with_the_rate_that_suits_them() {
    let words = format!("bench --device cpu --ops --json {SIZES}").replace("--runs 3", "--runs 1");
    let lines = json_lines(&Folder::new("bench-ops").succeeded(&words));
    let named =
        |name: &str| lines.iter().find(|line| line["operation"] == name).unwrap_or_else(|| panic!("{name}"));
    for form in ["gemm A B", "gemm A B'", "gemm A' B", "gemm A' B'"] {
        let line = named(form);
        assert_eq!(line["shape"], "64x64x64");
        expect_near(line, "gflops", 2.0 * 64.0_f64.powi(3) / number(line, "milliseconds") / 1e6);
        assert!(line["gigabytes_per_second"].is_null());
    }
    for name in ["gru steps", "gru steps and backward"] {
        assert_eq!(named(name)["shape"], "sequence 4, batch 2, hidden 8");
        assert!(number(named(name), "gflops") > 0.0);
    }
    // Logits of 8 rows of 64 classes are read, and as many gradients written.
    let line = named("cross-entropy");
    expect_near(line, "gigabytes_per_second", 2.0 * 4.0 * 8.0 * 64.0 / number(line, "milliseconds") / 1e6);
    assert!(named("adam")["gflops"].is_null());
}

#[test]
fn absurd_sizes_are_refused_and_those_beyond_memory_skipped() {
    let folder = Folder::new("bench-absurd");
    for (options, expected) in [
        ("--hidden 0", "--hidden: must be between 1"),
        ("--hidden 8,0", "--hidden: must be between 1"),
        ("--batch 0", "--batch: must be between 1"),
        ("--sequence 99999999", "--sequence: must be between 1"),
        ("--layers 0", "--layers: must be between 1"),
        ("--runs 0", "--runs: must be between 1"),
        ("--seconds=-1", "--seconds: must be between 0"),
        ("--hidden 16000000", "bench: none of these shapes fits cpu"),
    ] {
        let message = folder.refused(&format!("bench --device cpu {options}"));
        assert!(message.contains(expected), "{options}: {message}");
    }
    let message = folder.refused("bench --device cuda");
    assert!(message.contains("no device matches `cuda`"), "{message}");
    let words = format!("bench --device cpu --json --work infer {SIZES}")
        .replace("--hidden 8", "--hidden 8,16000000");
    let output = folder.run(&words);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("skipped: infer gru, inputs 16000000"), "{told}");
    assert_eq!(json_lines(&String::from_utf8_lossy(&output.stdout)).len(), 1);
}

#[test]
fn options_that_would_be_ignored_are_wrong_usage() {
    let folder = Folder::new("bench-usage");
    for options in [
        "--work fly",
        "--cell swish",
        "--ops --profile trace.json",
        "--ops --plot scale.svg",
        "--ops --layers 2",
        "--ops --grid",
        "--hidden 8,",
    ] {
        let output = folder.run(&format!("bench --device cpu {options}"));
        assert_eq!(output.status.code(), Some(2), "{options}");
        assert!(output.stdout.is_empty(), "{options}");
    }
}

#[test]
fn a_plot_shows_how_time_grows_with_one_size() {
    let folder = Folder::new("bench-plot");
    let words = format!("bench --device cpu --work infer,train --plot scale.svg {SIZES}");
    let out = folder.succeeded(&words.replace("--sequence 4", "--sequence 8,2,4"));
    for part in ["time ~ time steps ^ exponent", "gru infer", "gru train", "scale.svg"] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let svg = fs::read_to_string(folder.file("scale.svg")).expect("a picture");
    for part in
        ["<svg", "milliseconds", "time steps", "gru infer: exponent", "gru train: exponent", "batch 2"]
    {
        assert!(svg.contains(part), "{part} in {svg}");
    }
    let quiet = folder.succeeded(&words.replace("--sequence 4", "--sequence 2,4 --json"));
    assert_eq!(json_lines(&quiet).len(), 4);
}

#[test]
fn a_plot_of_no_size_or_of_two_is_refused_before_anything_is_timed() {
    let folder = Folder::new("bench-plot-refused");
    for (sizes, expected) in [
        (SIZES.to_owned(), "--plot: plots time against one size: give several values"),
        (
            SIZES.replace("--batch 2", "--batch 2,3").replace("--hidden 8", "--hidden 8,9"),
            "--batch and --hidden",
        ),
    ] {
        let message = folder.refused(&format!("bench --device cpu --plot scale.svg {sizes}"));
        assert!(message.contains(expected), "{message}");
    }
    let sizes = SIZES.replace("--batch 2", "--batch 2,3");
    let message = folder.refused(&format!("bench --device cpu --plot a.svg --profile ./a.svg {sizes}"));
    assert!(message.contains("is also"), "{message}");
    let message = folder.refused(&format!("bench --device cpu --plot missing/scale.svg {sizes}"));
    assert!(message.contains("missing/scale.svg"), "{message}");
    assert!(folder.names().is_empty());
}
