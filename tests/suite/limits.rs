//! Work larger than a binding or a grid is cut into pieces: with limits set artificially low every operation
//! computes what it computes with the adapter's own.
//!
//! Where cutting does not change the order of any sum the bits are equal. Where it does, each of the K roundings
//! of a sum is off by at most ε/2 of the partial sum, and they add up like a random walk: √K ε times the largest
//! partial sum, eight times that for the tails.
//!
//! Long, because every kind of work that is cut has its cases here.

use refrain::loss::{CrossEntropy, cross_entropy};
use refrain::nn::{Cell, Linear, Model, Rnn, Sequences, State};
use refrain::ops::{self, Activation, Binary, Form, Norm, Reduction};
use refrain::{Device, Error, GpuOptions, IGNORED, Indices, Result, Tensor, View};

use crate::adapters::{Adapter, Outcome, Suite, on_gpu, on_gpu_tiers};
use crate::support::{
    Optimizer, Rule, Setup, all_gradients, all_parameters, expect_close, expect_same_bits, largest, random,
    tokens, wide,
};

/// The ceiling of a binding: at least 960 elements are left of it after alignment.
const BINDING_BYTES: u64 = 4096;
/// Elements that no binding under [`BINDING_BYTES`] can hold.
const TOO_WIDE: usize = 1100;
/// The ceiling of workgroups along an axis.
const WORKGROUPS: u32 = 2;

fn low_limits(adapter: &Adapter) -> Result<Device> {
    adapter.open_with(&GpuOptions {
        binding_bytes: Some(BINDING_BYTES),
        workgroups: Some(WORKGROUPS),
        ..GpuOptions::default()
    })
}

/// How the results with low limits may differ from those without.
#[derive(Clone, Copy)]
enum Order {
    /// Every sum keeps its order.
    Kept,
    /// A sum of this many terms is taken in another order.
    Changed { terms: usize },
}

type Body = Box<dyn Fn(&Device) -> Result<Vec<f32>>>;

struct Case {
    name: String,
    order: Order,
    body: Body,
}

fn case(name: impl Into<String>, order: Order, body: impl Fn(&Device) -> Result<Vec<f32>> + 'static) -> Case {
    Case { name: name.into(), order, body: Box::new(body) }
}

fn downloads(tensors: &[&Tensor]) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for tensor in tensors {
        all.extend(tensor.download()?);
    }
    Ok(all)
}

/// Runs `body` on both devices; the low limits must have cut it.
fn on_both<T>(name: &str, devices: [&Device; 2], body: impl Fn(&Device) -> Result<T>) -> Result<[T; 2]> {
    let run = |device: &Device| -> Result<(T, u64)> {
        let before = device.counters().dispatches;
        let values = body(device)?;
        Ok((values, device.counters().dispatches - before))
    };
    let ((expected, once), (found, pieces)) = (run(devices[0])?, run(devices[1])?);
    assert!(pieces > once, "{name}: {pieces} dispatches with low limits, {once} without: nothing was cut");
    Ok([expected, found])
}

fn compare(case: &Case, whole: &Device, cut: &Device) -> Outcome {
    let [expected, found] = on_both(&case.name, [whole, cut], &case.body)?;
    expect_agreement(&case.name, case.order, &expected, &found)
}

fn expect_agreement(name: &str, order: Order, expected: &[f32], found: &[f32]) -> Outcome {
    match order {
        Order::Kept => expect_same_bits(name, expected, found),
        Order::Changed { terms } => {
            let (expected, found) = (wide(expected), wide(found));
            let epsilon = f64::from(f32::EPSILON);
            let allowed = 8.0 * (terms as f64).sqrt() * epsilon * largest(&expected).max(1.0);
            expect_close(name, &expected, &found, allowed)
        }
    }
}

fn compare_all(adapter: &Adapter, cases: Vec<Case>) -> Outcome {
    let (whole, cut) = (adapter.open()?, low_limits(adapter)?);
    cases.iter().try_for_each(|case| compare(case, &whole, &cut))
}

fn elementwise_operations_are_cut_without_a_trace(adapter: &Adapter) -> Outcome {
    const SIZES: [usize; 2] = [70, 50];
    compare_all(
        adapter,
        vec![
            case("unary", Order::Kept, |device| {
                let x = random(device, 1, &SIZES, 3.0)?;
                let y = ops::unary(&x, Activation::Tanh)?;
                let d_x = ops::unary_backward(&x, &y, &random(device, 2, &SIZES, 1.0)?, Activation::Tanh)?;
                downloads(&[&y, &d_x])
            }),
            case("binary", Order::Kept, |device| {
                let (a, b) = (random(device, 3, &SIZES, 3.0)?, random(device, 4, &SIZES, 3.0)?);
                downloads(&[&ops::binary(&a, &b, Binary::Axpy(0.5))?, &ops::scale(&a, 3.0)?])
            }),
            case("permute", Order::Kept, |device| {
                let x = random(device, 5, &[7, 50, 5, 2], 1.0)?;
                downloads(&[&ops::permute(&x, &[2, 0, 3, 1])?])
            }),
        ],
    )
}

fn matrix_products_are_cut_in_all_forms(adapter: &Adapter) -> Outcome {
    const M: usize = 70;
    const K: usize = 150;
    const N: usize = 140;
    let product = |form: Form| {
        case(format!("matmul {form:?}"), Order::Changed { terms: K }, move |device| {
            let (a, b): ([usize; 2], [usize; 2]) = match form {
                Form::Plain => ([M, K], [K, N]),
                Form::RightTransposed => ([M, K], [N, K]),
                Form::LeftTransposed => ([K, M], [K, N]),
                Form::BothTransposed => ([K, M], [N, K]),
            };
            let bias = random(device, 8, &[N], 1.0)?;
            let (a, b) = (random(device, 6, &a, 1.0)?, random(device, 7, &b, 1.0)?);
            downloads(&[&ops::matmul(&a, &b, form, Some(View::from(&bias)))?])
        })
    };
    compare_all(adapter, Form::ALL.map(product).into())
}

fn row_operations_are_cut_between_rows(adapter: &Adapter) -> Outcome {
    const SIZES: [usize; 3] = [10, 4, 60];
    let labels = || {
        let mut labels = tokens(9, 40, 60);
        labels[7] = IGNORED;
        labels
    };
    compare_all(
        adapter,
        vec![
            case("softmax", Order::Kept, |device| {
                let (x, d_y) = (random(device, 10, &SIZES, 4.0)?, random(device, 11, &SIZES, 1.0)?);
                let (y, z) = (ops::softmax(&x)?, ops::log_softmax(&x)?);
                let back = ops::softmax_backward(&y, &d_y)?;
                downloads(&[&y, &z, &back, &ops::log_softmax_backward(&z, &d_y)?])
            }),
            case("cross-entropy rows", Order::Kept, move |device| {
                let labels = Indices::from_slice(device, &[10, 4], &labels())?;
                let (x, d_rows) = (random(device, 12, &SIZES, 4.0)?, random(device, 13, &[10, 4], 1.0)?);
                let loss = CrossEntropy::default().weights(random(device, 14, &[60], 1.0)?).smoothing(0.1);
                downloads(&[&loss.rows(&x, &labels)?, &loss.rows_backward(&x, &labels, &d_rows)?])
            }),
            case("cross-entropy", Order::Kept, |device| {
                let x = random(device, 15, &SIZES, 4.0)?;
                let labels = Indices::from_slice(device, &[10, 4], &tokens(16, 40, 60))?;
                let (loss, d_x) = CrossEntropy::default().reduced(&x, &labels, Reduction::Mean)?;
                downloads(&[&loss, &d_x])
            }),
        ],
    )
}

fn embeddings_are_cut_by_place_and_by_token(adapter: &Adapter) -> Outcome {
    let both = |name: &str, vocabulary: usize, features: usize, count: usize| {
        case(name, Order::Changed { terms: count }, move |device| {
            let table = random(device, 17, &[vocabulary, features], 1.0)?;
            let places = Indices::from_slice(device, &[count], &tokens(18, count, vocabulary as u32))?;
            let d_y = random(device, 19, &[count, features], 1.0)?;
            let y = ops::embedding(&places, &table)?;
            downloads(&[&y, &ops::embedding_backward(&places, &d_y, vocabulary)?])
        })
    };
    compare_all(
        adapter,
        vec![
            both("wide table", 90, 40, 60),
            // More places than a binding has elements: the lists of places must be cut as well.
            both("one feature", 3000, 1, 2500),
            both("two features", 700, 2, 1500),
            case("one-hot", Order::Kept, |device| {
                let places = Indices::from_slice(device, &[9, 10], &tokens(20, 90, 37))?;
                downloads(&[&ops::one_hot(&places, 37)?])
            }),
        ],
    )
}

fn reductions_are_cut_into_partial_sums(adapter: &Adapter) -> Outcome {
    compare_all(
        adapter,
        vec![
            case("norms", Order::Changed { terms: 12_000 }, |device| {
                let x = random(device, 21, &[30, 400], 1.0)?;
                let norms = [ops::norm(&x, Norm::L2)?, ops::norm(&x, Norm::L1)?, ops::squared_norm(&x)?];
                downloads(&[&norms[0], &norms[1], &norms[2], &ops::sum(&x)?])
            }),
            case("largest magnitude", Order::Kept, |device| {
                downloads(&[&ops::norm(&random(device, 22, &[30, 400], 1.0)?, Norm::Infinity)?])
            }),
            case("rows", Order::Changed { terms: 600 }, |device| {
                downloads(&[&ops::sum_rows(&random(device, 23, &[600, 30], 1.0)?)?])
            }),
            // One row fills more than half a binding: no two fit at once.
            case("wide rows", Order::Changed { terms: 9 }, |device| {
                downloads(&[&ops::sum_rows(&random(device, 24, &[9, 600], 1.0)?)?])
            }),
            case("rows wider than a binding", Order::Changed { terms: 9 }, |device| {
                downloads(&[&ops::sum_rows(&random(device, 28, &[9, TOO_WIDE], 1.0)?)?])
            }),
        ],
    )
}

/// A change of a description.
type Build = fn(Rnn) -> Rnn;

/// A recurrent layer and the batch that it runs over.
#[derive(Clone, Copy)]
struct Recurrent {
    cell: Cell,
    /// What it has beside.
    build: Build,
    hidden: usize,
    batch: usize,
    steps: usize,
}

impl Recurrent {
    fn new(cell: Cell, hidden: usize, [batch, steps]: [usize; 2], build: Build) -> Self {
        Self { cell, build, hidden, batch, steps }
    }

    /// What keeps its bits when time is cut, and the gradients of the weights, which are sums over time. The batch is
    /// ragged and has resets.
    fn run(&self, device: &Device) -> Result<(Vec<f32>, Vec<f32>)> {
        let Self { cell, build, hidden, batch, steps } = *self;
        let mut model = Model::new(4);
        let rnn = model.add("rnn", build(Rnn::new(cell, 3, hidden)))?;
        let parameters = model.initialize(device)?;
        let part = |stream, like: Tensor| random(device, stream, like.shape().dimensions(), 1.0);
        let zero = rnn.zero_state(device, batch)?;
        let hidden_state = part(26, zero.hidden())?;
        let state = match zero.cell() {
            Some(cell) => State::from_hidden_and_cell(&hidden_state, &part(29, cell)?)?,
            None => State::from_hidden(&hidden_state)?,
        };
        let lengths: Vec<u32> = (0..batch).map(|row| 1 + (row * 7 % steps) as u32).collect();
        let lengths = Indices::from_slice(device, &[batch], &lengths)?;
        let resets: Vec<u32> = (0..steps * batch).map(|place| u32::from(place % 11 == 5)).collect();
        let resets = Indices::from_slice(device, &[steps, batch], &resets)?;
        let sequences = Sequences::ragged(&lengths).resets(&resets);
        let x = random(device, 25, &[steps, batch, 3], 1.0)?;
        let (y, last, trace) = rnn.forward_sequences(&parameters, &x, &state, sequences)?;
        let mut gradients = parameters.zero_gradients()?;
        let d_y = random(device, 27, y.shape().dimensions(), 1.0)?;
        let (d_x, d_initial) = trace.backward(&d_y, Some(&state), &mut gradients)?;
        let mut kept = downloads(&[&y, &last.hidden(), &d_x, &d_initial.hidden()])?;
        for cell in [last.cell(), d_initial.cell()].into_iter().flatten() {
            kept.extend(cell.download()?);
        }
        let summed = all_gradients(&parameters, &gradients)?.into_iter().map(|value| value as f32).collect();
        Ok((kept, summed))
    }
}

fn recurrent_steps_are_cut_by_time_rows_and_units(adapter: &Adapter) -> Outcome {
    let both = Rnn::bidirectional;
    let (tanh, lstm, gru) = (Cell::tanh(), Cell::Lstm, Cell::Gru);
    let sizes = [
        ("many steps", Recurrent::new(tanh, 10, [6, 40], both)),
        ("many steps of an LSTM", Recurrent::new(lstm, 6, [6, 40], both)),
        // More than two workgroups of 16 rows.
        ("many rows", Recurrent::new(tanh, 5, [40, 4], both)),
        // As many as two steps of gates leave room for.
        ("many rows of a GRU", Recurrent::new(gru, 4, [40, 4], both)),
        (
            "a GRU that resets before",
            Recurrent::new(gru, 6, [6, 40], |stack| stack.reset_before().bidirectional()),
        ),
        ("peepholes", Recurrent::new(lstm, 6, [6, 40], |stack| stack.peepholes().coupled().bidirectional())),
        ("a projection", Recurrent::new(lstm, 6, [6, 40], |stack| stack.projection(4).bidirectional())),
        // More windows than go together.
        ("windows", Recurrent::new(tanh, 10, [6, 40], |stack| stack.windowed(3))),
        ("windows of an LSTM", Recurrent::new(lstm, 6, [6, 40], |stack| stack.windowed(1).peepholes())),
        ("windows of a GRU", Recurrent::new(gru, 6, [6, 40], |stack| stack.windowed(30))),
        (
            "windows of a projection",
            Recurrent::new(lstm, 6, [6, 40], |stack| stack.windowed(4).projection(4)),
        ),
        (
            "overlapping windows",
            Recurrent::new(gru, 6, [6, 40], |stack| stack.truncated_every(3, 7).reset_before()),
        ),
        ("many rows of windows", Recurrent::new(lstm, 3, [40, 4], |stack| stack.windowed(1))),
    ];
    let (whole, cut) = (adapter.open()?, low_limits(adapter)?);
    for (name, layer) in sizes {
        let [expected, found] = on_both(name, [&whole, &cut], |device| layer.run(device))?;
        expect_agreement(name, Order::Kept, &expected.0, &found.0)?;
        let terms = layer.batch * layer.steps;
        expect_agreement(&format!("{name}, weights"), Order::Changed { terms }, &expected.1, &found.1)?;
    }
    // More than one workgroup of 16 units: a lower ceiling of workgroups, and bindings as they are.
    let narrow = adapter.open_with(&GpuOptions { workgroups: Some(1), ..GpuOptions::default() })?;
    let builds: [(Cell, Build); 7] = [
        (tanh, both),
        (lstm, both),
        (gru, both),
        (gru, |stack| stack.reset_before().bidirectional()),
        (lstm, |stack| stack.peepholes().projection(35).bidirectional()),
        (gru, |stack| stack.reset_before().windowed(2)),
        (lstm, |stack| stack.peepholes().projection(35).windowed(2)),
    ];
    for (number, (cell, build)) in builds.into_iter().enumerate() {
        let layer = Recurrent::new(cell, 40, [7, 5], build);
        let name = format!("many units, {}, number {number}", cell.name());
        let units = case(name, Order::Kept, move |device| Ok(layer.run(device)?.0));
        compare(&units, &whole, &narrow)?;
    }
    Ok(())
}

fn optimizers_are_cut_without_a_trace(adapter: &Adapter) -> Outcome {
    let update = |rule: Rule| {
        case(format!("{rule:?}"), Order::Kept, move |device| {
            let mut model = Model::new(5);
            let layer = model.add("linear", Linear::new(40, 30))?;
            let mut parameters = model.initialize(device)?;
            let mut optimizer = Optimizer::new(rule, 0.1, &parameters)?;
            for step in 0..3 {
                let mut gradients = parameters.zero_gradients()?;
                let (_, trace) = layer.forward(&parameters, &random(device, 30 + step, &[8, 40], 1.0)?)?;
                trace.backward(&random(device, 40 + step, &[8, 30], 1.0)?, &mut gradients)?;
                optimizer.step(&mut parameters, &gradients)?;
            }
            all_parameters(&parameters)
        })
    };
    compare_all(
        adapter,
        vec![update(Rule::Adam), update(Rule::Sgd { momentum: 0.9 }), update(Rule::Sgd { momentum: 0.0 })],
    )
}

fn training_steps_are_cut(adapter: &Adapter) -> Outcome {
    let setup =
        Setup { hidden: 24, batch: 6, vocabulary: 40, rule: Rule::Sgd { momentum: 0.9 }, ..Setup::SMALL };
    // Clipping bounds a step's gradient by one, so an error grows by no more than the sums' own.
    let terms = setup.batch * setup.sequence * setup.hidden;
    let run = case("three steps", Order::Changed { terms }, move |device| {
        let run = setup.train(device, 3)?;
        Ok([run.losses, run.parameters].concat())
    });
    compare_all(adapter, vec![run])
}

fn expect_exceeds<T>(what: &str, result: Result<T>) -> Outcome {
    match result {
        Err(error @ Error::ExceedsLimit { needed, limit, .. }) => {
            assert!(needed > limit, "{what}: {error}");
            let message = error.to_string();
            for part in ["row", &needed.to_string(), &limit.to_string()] {
                assert!(message.contains(part), "{what}: `{message}` does not say `{part}`");
            }
            Ok(())
        }
        Err(other) => Err(format!("{what}: {other:?} instead of a limit").into()),
        Ok(_) => Err(format!("{what}: a row larger than a binding was taken").into()),
    }
}

fn a_row_larger_than_a_binding_is_an_error(adapter: &Adapter) -> Outcome {
    let device = low_limits(adapter)?;
    let wide = random(&device, 50, &[2, TOO_WIDE], 1.0)?;
    let labels = Indices::from_slice(&device, &[2], &[0, 1])?;
    expect_exceeds("softmax", ops::softmax(&wide))?;
    expect_exceeds("cross-entropy", cross_entropy(&wide, &labels))?;
    expect_exceeds("matmul", ops::matmul(&wide, &wide, Form::RightTransposed, None))?;
    expect_exceeds("embedding", ops::embedding(&labels, &wide))?;
    let mut model = Model::new(1);
    let rnn = model.add("rnn", Rnn::new(Cell::tanh(), 3, TOO_WIDE))?;
    let parameters = model.initialize(&device)?;
    let x = random(&device, 51, &[2, 1, 3], 1.0)?;
    let state = rnn.zero_state(&device, 1)?;
    let before = device.counters().dispatches;
    expect_exceeds("recurrent step", rnn.infer(&parameters, &x, &state))?;
    // The inputs may have been projected; turning W_hh in such small pieces takes millions.
    let calls = device.counters().dispatches - before;
    assert!(calls < TOO_WIDE as u64, "{calls} dispatches before a row was refused");
    // The device is as good as before.
    let small = Tensor::from_slice(&device, &[2], &[1.0, 2.0])?;
    assert_eq!(ops::sum(&small)?.read()?, 3.0);
    Ok(())
}

fn limits_too_low_to_work_with_are_refused(adapter: &Adapter) -> Outcome {
    let options = [
        GpuOptions { binding_bytes: Some(0), ..GpuOptions::default() },
        GpuOptions { binding_bytes: Some(64), ..GpuOptions::default() },
        GpuOptions { workgroups: Some(0), ..GpuOptions::default() },
    ];
    for options in options {
        let refused = adapter.open_with(&options);
        assert!(matches!(&refused, Err(Error::Config { what, .. }) if what == "GPU options"), "{refused:?}");
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_gpu!(
        suite,
        elementwise_operations_are_cut_without_a_trace,
        matrix_products_are_cut_in_all_forms,
        row_operations_are_cut_between_rows,
        embeddings_are_cut_by_place_and_by_token,
        reductions_are_cut_into_partial_sums,
        optimizers_are_cut_without_a_trace,
        training_steps_are_cut,
        a_row_larger_than_a_binding_is_an_error,
        limits_too_low_to_work_with_are_refused,
    );
    on_gpu_tiers!(suite, recurrent_steps_are_cut_by_time_rows_and_units);
}
