//! Cells of a user's own: they are layers like all others, and what is wrong with one is found and named.
//!
//! Long, because it writes out three cells, right and wrong.

use std::sync::{Arc, LazyLock};

use refrain::check::custom_cell;
use refrain::io::{Checkpoint, Metadata};
use refrain::nn::{
    Cell, CustomCell, Model, ModelConfig, RandomKey, Rnn, Sequences, UnitBackward, UnitEquations,
    UnitForward, UnitState, UnitStep,
};
use refrain::ops::Activation;
use refrain::testing::ShaderBuild;
use refrain::{Device, Error, GpuOptions, Indices, Result};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_devices_strategies, on_gpu_strategies};
use crate::imports::expect_refused;
use crate::misuse::refuses;
use crate::stacks::Stack;
use crate::support::{Build, Folder, all_parameters, expect_close, expect_same_bits};

pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// An LSTM whose forget gate is one minus its input gate, gates i, g, o; or a version of it with one fault.
#[derive(Debug)]
pub(crate) struct Coupled {
    name: &'static str,
    wgsl: String,
    /// The factor of the CPU reference's gradient of g: 1 is correct.
    factor: f64,
}

const COUPLED: &str = "
fn cell_forward(p: array<f32, GATES>, q: array<f32, GATES>, previous: CellState) -> Forward {
    let i = accurate_sigmoid(p[0] + q[0]);
    let g = accurate_tanh(p[1] + q[1]);
    let o = accurate_sigmoid(p[2] + q[2]);
    let c = (1.0 - i) * previous.cell + i * g;
    return Forward(array<f32, GATES>(i, g, o), c, o * accurate_tanh(c));
}

fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward {
    let i = step.gates[0];
    let g = step.gates[1];
    let o = step.gates[2];
    let y = accurate_tanh(step.saved);
    let d_c = d_cell + d_hidden * o * (1.0 - y * y);
    let d_gates = array<f32, GATES>(
        d_c * (g - step.previous.cell) * i * (1.0 - i),
        d_c * i * (1.0 - g * g),
        d_hidden * y * o * (1.0 - o),
    );
    return Backward(d_gates, 0.0, 0.0, d_c * (1.0 - i));
}
";

impl UnitEquations for Coupled {
    fn name(&self) -> &str {
        self.name
    }

    fn gates(&self) -> usize {
        3
    }

    fn has_cell_state(&self) -> bool {
        true
    }

    fn wgsl(&self) -> &str {
        &self.wgsl
    }

    fn forward(&self, p: &[f64], q: &[f64], previous: UnitState, gates: &mut [f64]) -> UnitForward {
        let (i, g, o) = (sigmoid(p[0] + q[0]), (p[1] + q[1]).tanh(), sigmoid(p[2] + q[2]));
        gates.copy_from_slice(&[i, g, o]);
        let c = (1.0 - i) * previous.cell + i * g;
        UnitForward { saved: c, hidden: o * c.tanh() }
    }

    fn backward(&self, step: &UnitStep<'_>, d_after: UnitState, d_gates: &mut [f64]) -> UnitBackward {
        let &[i, g, o] = step.gates else { unreachable!("forward wrote three") };
        let y = step.saved.tanh();
        let d_c = d_after.cell + d_after.hidden * o * (1.0 - y * y);
        let d_i = d_c * (g - step.previous.cell) * i * (1.0 - i);
        let d_g = self.factor * d_c * i * (1.0 - g * g);
        d_gates.copy_from_slice(&[d_i, d_g, d_after.hidden * y * o * (1.0 - o)]);
        UnitBackward { d_cell: d_c * (1.0 - i), ..UnitBackward::default() }
    }
}

pub(crate) static RIGHT: LazyLock<CustomCell> =
    LazyLock::new(|| CustomCell::new(Coupled { name: "coupled", wgsl: COUPLED.to_owned(), factor: 1.0 }));
static WRONG_REFERENCE: LazyLock<CustomCell> =
    LazyLock::new(|| CustomCell::new(Coupled { name: "wrong_twin", wgsl: COUPLED.to_owned(), factor: 1.01 }));

type Function = fn(f64) -> f64;

/// h = f(the sum of all gates' sums), of which f' is a function of h. With one gate and tanh it is what `Cell::tanh` is.
#[derive(Debug)]
pub(crate) struct OfSum {
    name: String,
    wgsl: String,
    gates: usize,
    function: Function,
    derivative: Function,
    /// Counts the cells that exist.
    _exists: Arc<()>,
}

impl OfSum {
    pub(crate) fn tanh(name: &str, wgsl: impl Into<String>, gates: usize) -> Self {
        Self {
            name: name.to_owned(),
            wgsl: wgsl.into(),
            gates,
            function: f64::tanh,
            derivative: |h| 1.0 - h * h,
            _exists: Arc::default(),
        }
    }
}

const ELMAN: &str = "
fn cell_forward(p: array<f32, GATES>, q: array<f32, GATES>, previous: CellState) -> Forward {
    return Forward(array<f32, GATES>(0.0), 0.0, accurate_tanh(p[0] + q[0]));
}
fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward {
    return Backward(array<f32, GATES>(d_hidden * (1.0 - step.hidden) * (1.0 + step.hidden)), 0.0, 0.0, 0.0);
}
";

/// What is wrong with the fourth line of a cell's text.
const FAULTS: [(&str, &str); 3] =
    [("parse", "let y = tanhh(h);"), ("type", "let y: u32 = p[0] * h;"), ("grammar", "let y = ) h;")];

impl UnitEquations for OfSum {
    fn name(&self) -> &str {
        &self.name
    }

    fn gates(&self) -> usize {
        self.gates
    }

    fn wgsl(&self) -> &str {
        &self.wgsl
    }

    fn forward(&self, p: &[f64], q: &[f64], _: UnitState, gates: &mut [f64]) -> UnitForward {
        gates.fill(0.0);
        let sum = p.iter().zip(q).map(|(p, q)| p + q).sum();
        UnitForward { saved: 0.0, hidden: (self.function)(sum) }
    }

    fn backward(&self, step: &UnitStep<'_>, d_after: UnitState, d_gates: &mut [f64]) -> UnitBackward {
        d_gates.fill(d_after.hidden * (self.derivative)(step.hidden));
        UnitBackward::default()
    }
}

/// A GRU as a user writes it: its last gate's recurrent part has a gradient of its own.
#[derive(Debug)]
pub(crate) struct Gated;

impl UnitEquations for Gated {
    fn name(&self) -> &str {
        "gated"
    }

    fn gates(&self) -> usize {
        3
    }

    fn last_gate_apart(&self) -> bool {
        true
    }

    fn wgsl(&self) -> &str {
        "
        fn cell_forward(p: array<f32, GATES>, q: array<f32, GATES>, previous: CellState) -> Forward {
            let r = accurate_sigmoid(p[0] + q[0]);
            let z = accurate_sigmoid(p[1] + q[1]);
            let n = accurate_tanh(p[2] + r * q[2]);
            return Forward(array<f32, GATES>(r, z, n), q[2], (1.0 - z) * n + z * previous.hidden);
        }

        fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward {
            let r = step.gates[0];
            let z = step.gates[1];
            let n = step.gates[2];
            let d_n = d_hidden * (1.0 - z) * (1.0 - n * n);
            let d_z = d_hidden * (step.previous.hidden - n) * z * (1.0 - z);
            let d_r = d_n * step.saved * r * (1.0 - r);
            return Backward(array<f32, GATES>(d_r, d_z, d_n), d_n * r, d_hidden * z, 0.0);
        }
        "
    }

    fn forward(&self, p: &[f64], q: &[f64], previous: UnitState, gates: &mut [f64]) -> UnitForward {
        let (r, z) = (sigmoid(p[0] + q[0]), sigmoid(p[1] + q[1]));
        let n = (p[2] + r * q[2]).tanh();
        gates.copy_from_slice(&[r, z, n]);
        UnitForward { saved: q[2], hidden: (1.0 - z) * n + z * previous.hidden }
    }

    fn backward(&self, step: &UnitStep<'_>, d_after: UnitState, d_gates: &mut [f64]) -> UnitBackward {
        let &[r, z, n] = step.gates else { unreachable!("forward wrote three") };
        let d_n = d_after.hidden * (1.0 - z) * (1.0 - n * n);
        let d_z = d_after.hidden * (step.previous.hidden - n) * z * (1.0 - z);
        d_gates.copy_from_slice(&[d_n * step.saved * r * (1.0 - r), d_z, d_n]);
        UnitBackward { d_apart: d_n * r, d_hidden: d_after.hidden * z, d_cell: 0.0 }
    }
}

pub(crate) static GATED: LazyLock<CustomCell> = LazyLock::new(|| CustomCell::new(Gated));
static PLAIN: LazyLock<CustomCell> = LazyLock::new(|| CustomCell::new(OfSum::tanh("elman", ELMAN, 1)));

fn a_correct_cell_agrees_with_finite_differences_and_with_its_cpu_reference(device: &Device) -> Outcome {
    for cell in [&*RIGHT, &*PLAIN, &*GATED] {
        let report = custom_cell(cell, device)?;
        assert!(report.passed(), "{report}");
        assert!(report.checks.len() > 8, "{report}");
    }
    Ok(())
}

fn a_cpu_reference_that_differs_from_finite_differences_is_reported_by_gradient() -> Outcome {
    let report = custom_cell(&WRONG_REFERENCE, &Device::reference())?;
    let wrong: Vec<&str> = report
        .checks
        .iter()
        .filter(|check| check.failure.is_some())
        .map(|check| check.quantity.as_str())
        .collect();
    let expected = "the CPU reference's backward against finite differences, d_gates[1] at the";
    assert_eq!(wrong, [format!("{expected} input sum"), format!("{expected} recurrent sum")]);
    assert!(!report.passed() && report.to_string().contains("FAIL"));
    Ok(())
}

fn wgsl_that_differs_from_its_cpu_reference_is_reported_by_result(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    for (name, right, wrong, quantity) in [
        ("wrong_forward", "i * g;", "i * g * 1.01;", "saved, the new c"),
        ("wrong_output", "d_hidden * y * o", "d_hidden * y * 1.01 * o", "d_gates[2]"),
        ("wrong_cell", "d_c * (1.0 - i));", "d_c * (1.01 - i));", "d_cell"),
    ] {
        let wgsl = COUPLED.replacen(right, wrong, 1);
        assert_ne!(wgsl, COUPLED);
        let report = custom_cell(&CustomCell::new(Coupled { name, wgsl, factor: 1.0 }), &device)?;
        let failures = report.checks.iter().filter(|check| check.failure.is_some());
        let quantities: Vec<&str> = failures.map(|check| check.quantity.as_str()).collect();
        let first = quantities.first().ok_or("the fault was not found")?;
        assert!(
            first.contains("against the CPU reference, T = 1") && first.contains(quantity),
            "{name}: {quantities:?}"
        );
    }
    Ok(())
}

/// What a stack of two layers may have beside its cell.
const STACKS: [Build; 5] = [
    |stack| stack.bidirectional().truncated(3),
    |stack| stack.windowed(2),
    |stack| stack.truncated_every(3, 4).clip_gradient(0.02),
    |stack| stack.reverse().clip_gradient(0.02).residual(),
    |stack| stack.recurrent_dropout(0.3).weight_drop(0.2).windowed(3),
];

/// All outputs and gradients of a stack over ragged rows.
fn whole_layer(cell: &Cell, build: Build, device: &Device) -> Result<Vec<f64>> {
    let (steps, batch) = (7, 5);
    let stack = Stack::new(device, build(Rnn::new(cell.clone(), 3, 17).layers(2)))?;
    let lengths = Indices::from_slice(device, &[batch], &[7, 1, 4, 6, 2])?;
    let sequences = Sequences::ragged(&lengths).training(RandomKey::new(3, 5));
    let pass = stack.pass(&stack.operands([steps, batch])?, sequences)?;
    Ok(pass.values()?.map(|(_, values)| values).concat())
}

fn a_custom_cell_is_a_layer_like_the_built_in_one() -> Outcome {
    let device = Device::reference();
    for build in STACKS {
        for (name, own, built_in) in [
            ("elman and tanh", Cell::Custom(PLAIN.clone()), Cell::Vanilla(Activation::Tanh)),
            ("gated and gru", Cell::Custom(GATED.clone()), Cell::Gru),
        ] {
            let (own, built_in) =
                (whole_layer(&own, build, &device)?, whole_layer(&built_in, build, &device)?);
            expect_close(name, &own, &built_in, 1e-12)?;
        }
    }
    let own = whole_layer(&Cell::Custom(RIGHT.clone()), |stack| stack.windowed(2), &device)?;
    let built_in = whole_layer(&Cell::Lstm, |stack| stack.windowed(2).coupled(), &device)?;
    expect_close("both coupled", &own, &built_in, 1e-12)
}

fn the_whole_layer_of_a_custom_cell_runs_on_a_gpu(adapter: &Adapter) -> Outcome {
    for build in [ShaderBuild::Checked, ShaderBuild::Trusted] {
        let device = adapter.open_with(&GpuOptions { build, ..GpuOptions::default() })?;
        for cell in [&*RIGHT, &*PLAIN, &*GATED] {
            for build in STACKS {
                let expected = whole_layer(&Cell::Custom(cell.clone()), build, &Device::reference())?;
                // Sums of 17 + 34 products, two layers and seven steps: some hundred roundings of numbers below 10.
                expect_close(
                    cell.name(),
                    &whole_layer(&Cell::Custom(cell.clone()), build, &device)?,
                    &expected,
                    2e-5,
                )?;
            }
        }
    }
    Ok(())
}

fn add(cell: OfSum) -> Result<()> {
    Model::new(1).add("rnn", Rnn::new(Cell::Custom(CustomCell::new(cell)), 2, 3)).map(drop)
}

fn wgsl_that_does_not_compile_is_refused_with_its_own_line() -> Outcome {
    for (name, line) in FAULTS {
        let wgsl = ELMAN.replacen("    return", &format!("    let h = 1.0;\n    {line}\n    return"), 1);
        refuses!(Shader, add(OfSum::tanh(name, wgsl, 1)), name, "4 │", line);
    }
    Ok(())
}

fn cells_without_a_function_and_facts_that_make_no_sense_are_refused() -> Outcome {
    let half = ELMAN.split("fn cell_backward").next().unwrap_or_default();
    for (name, wgsl, gates, parts) in [
        ("half", half, 1, ["cell_backward", "the cell must provide"]),
        ("no_gates", ELMAN, 0, ["gates", "between 1 and 8"]),
        ("many_gates", ELMAN, 9, ["gates", "between 1 and 8"]),
        ("white space", ELMAN, 1, ["white space", "letters"]),
    ] {
        expect_refused(add(OfSum::tanh(name, wgsl, gates)), &parts)?;
    }
    Ok(())
}

fn options_of_built_in_cells_are_refused_by_both_names() -> Outcome {
    let options: [(&str, Build); 8] = [
        ("peepholes", Rnn::peepholes),
        ("coupled", Rnn::coupled),
        ("reset_before", Rnn::reset_before),
        ("clip_gates", |stack| stack.clip_gates(1.0)),
        ("clip_cell", |stack| stack.clip_cell(1.0)),
        ("projection", |stack| stack.projection(2)),
        ("zoneout", |stack| stack.zoneout(0.5, 0.0)),
        ("gate_activations", |stack| {
            stack.gate_activations(Activation::Sigmoid, Activation::Tanh, Activation::Tanh)
        }),
    ];
    for (option, build) in options {
        let stack = build(Rnn::new(Cell::Custom(PLAIN.clone()), 3, 4));
        refuses!(Config, Model::new(1).add("rnn", stack), option, "elman");
    }
    Ok(())
}

fn a_checkpoint_with_a_custom_cell_is_loaded_by_passing_the_cell() -> Outcome {
    let folder = Folder::new("custom")?;
    let path = folder.path().join("model.safetensors");
    let device = Device::cpu();
    let mut model = Model::new(1);
    model.add("rnn", Rnn::new(Cell::Custom(RIGHT.clone()), 2, 3))?;
    let parameters = model.initialize(&device)?;
    Checkpoint::save(&path, &model, &parameters, &Metadata::new())?;
    let cells = [GATED.clone(), RIGHT.clone()];
    let loaded = Checkpoint::load_with(&path, &device, &cells)?;
    assert_eq!(loaded.model.config(), model.config());
    expect_same_bits("weights", &all_parameters(&parameters)?, &all_parameters(&loaded.parameters)?)?;

    let text = serde_json::to_string(&model.config()).map_err(|error| error.to_string())?;
    let config: ModelConfig = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let results = [
        Checkpoint::load(&path, &device).map(drop),
        Checkpoint::load_with(&path, &device, &cells[..1]).map(drop),
        Model::from_config(&config).map(drop),
    ];
    for result in results {
        assert!(matches!(&result, Err(Error::MissingCell { name }) if name == "coupled"), "{result:?}");
    }
    let twice = Checkpoint::load_with(&path, &device, &[RIGHT.clone(), RIGHT.clone()]).map(drop);
    assert!(matches!(&twice, Err(Error::Config { what, .. }) if what.contains("coupled")), "{twice:?}");
    Ok(())
}

/// Two cells of one name on one device, each against the built-in cell with its equations; neither outlives its models.
fn cells_of_one_name_are_independent(device: &Device) -> Outcome {
    let exists = Arc::new(());
    let factors: [(f64, Function, Function); 2] =
        [(0.5, |sum| 0.5 * sum, |_| 0.5), (-0.75, |sum| -0.75 * sum, |_| -0.75)];
    let cells = factors.map(|(factor, function, derivative)| {
        let wgsl = format!(
            "
fn cell_forward(p: array<f32, GATES>, q: array<f32, GATES>, previous: CellState) -> Forward {{
    return Forward(array<f32, GATES>(0.0), 0.0, {factor} * (p[0] + q[0]));
}}
fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward {{
    return Backward(array<f32, GATES>({factor} * d_hidden), 0.0, 0.0, 0.0);
}}
"
        );
        let _exists = Arc::clone(&exists);
        CustomCell::new(OfSum { function, derivative, _exists, ..OfSum::tanh("scaled", wgsl, 1) })
    });
    assert!(cells[0] != cells[1] && cells[0] == cells[0].clone());
    // Twice, so that each runs after the other.
    for (cell, (factor, ..)) in cells.iter().zip(factors).cycle().take(4) {
        let built_in = Cell::Vanilla(Activation::Affine { alpha: factor as f32, beta: 0.0 });
        let expected = whole_layer(&built_in, STACKS[0], &Device::reference())?;
        let found = whole_layer(&Cell::Custom(cell.clone()), STACKS[0], device)?;
        expect_close(&format!("factor {factor}"), &found, &expected, 2e-5)?;
    }
    drop(cells);
    assert_eq!(Arc::strong_count(&exists), 1, "a cell exists after the last model with it");
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        a_cpu_reference_that_differs_from_finite_differences_is_reported_by_gradient,
        a_custom_cell_is_a_layer_like_the_built_in_one,
        wgsl_that_does_not_compile_is_refused_with_its_own_line,
        cells_without_a_function_and_facts_that_make_no_sense_are_refused,
        options_of_built_in_cells_are_refused_by_both_names,
        a_checkpoint_with_a_custom_cell_is_loaded_by_passing_the_cell,
    );
    on_devices_strategies!(
        suite,
        a_correct_cell_agrees_with_finite_differences_and_with_its_cpu_reference,
        cells_of_one_name_are_independent,
    );
    on_gpu_strategies!(
        suite,
        wgsl_that_differs_from_its_cpu_reference_is_reported_by_result,
        the_whole_layer_of_a_custom_cell_runs_on_a_gpu,
    );
}
