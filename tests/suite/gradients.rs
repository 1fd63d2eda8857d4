//! Every analytic gradient against central finite differences, in 64-bit floats on the CPU reference.
//!
//! (f(x + h) − f(x − h)) / 2h differs from f'(x) by h² f'''/6 from the Taylor series and by about ε |f| / h
//! from rounding. h = ∛ε makes the two equal: each is about 4·10⁻¹¹ times a constant of the function. At a
//! kink of a function the series does not hold, so inputs are sampled again until none lies within [`MARGIN`]
//! of one.
//!
//! Long, because each case has its own textbook form besides the CPU reference that it is compared with.

use std::f64::consts::FRAC_1_SQRT_2;

use libtest_mimic::Failed;
use refrain::loss::CrossEntropy;
use refrain::nn::{Cell, Embedding, Input, Layer, Linear, Model, OneHot, Parameters, Rnn, State};
use refrain::ops::{self, Activation, Reduction};
use refrain::{Device, IGNORED, Indices, Result, Tensor};

use crate::adapters::{Outcome, Suite, on_cpu};
use crate::support::{all_gradients, by_entry, largest, random, tokens, values, with_values};

/// Bounds f'''/6 and the number of roundings in f, each relative to the size of f, for these small cases.
const CONDITION: f64 = 100.0;
/// The least distance of a kink: 100 times what a step of ∛ε · 3 moves a pre-activation through weights of one.
const MARGIN: f64 = 2e-3;

/// h.
pub(crate) fn step() -> f64 {
    f64::EPSILON.cbrt()
}

/// The error that a correct gradient may show, for a function of magnitude `size`.
fn tolerance(size: f64) -> f64 {
    let h = step();
    CONDITION * (h * h + f64::EPSILON / h) * size
}

/// Compares `analytic` with finite differences of `function` at `point`, one input after the other.
pub(crate) fn check(
    what: &str,
    point: &[f64],
    analytic: &[f64],
    function: impl Fn(&[f64]) -> Result<f64>,
) -> Outcome {
    assert_eq!(point.len(), analytic.len(), "{what}: one gradient for each input");
    let allowed = tolerance(function(point)?.abs().max(largest(analytic)));
    let mut moved = point.to_vec();
    for (place, &x) in point.iter().enumerate() {
        let (above, below) = (x + step(), x - step());
        moved[place] = above;
        let up = function(&moved)?;
        moved[place] = below;
        let down = function(&moved)?;
        moved[place] = x;
        let numeric = (up - down) / (above - below);
        let error = (numeric - analytic[place]).abs();
        if error > allowed || error.is_nan() {
            let found = analytic[place];
            return Err(Failed::from(format!(
                "{what}, input {place}: gradient {found:e}, differences {numeric:e}, error {error:e} > {allowed:e}"
            )));
        }
    }
    // A gradient of zeros everywhere would agree with a function that ignores its inputs.
    assert!(largest(analytic) > 0.0, "{what}: the case moves nothing");
    Ok(())
}

fn dot(one: &[f64], two: &[f64]) -> f64 {
    one.iter().zip(two).map(|(a, b)| a * b).sum()
}

fn reference(dimensions: &[usize], data: &[f64]) -> Result<Tensor> {
    Tensor::from_slice_f64(&Device::reference(), dimensions, data)
}

/// Where the first or the second derivative of a function jumps.
fn kinks(function: Activation) -> Vec<f64> {
    match function {
        Activation::Relu
        | Activation::LeakyRelu { .. }
        | Activation::Elu { .. }
        | Activation::Selu
        | Activation::Softsign => vec![0.0],
        Activation::HardSigmoid { alpha, beta } => {
            let (alpha, beta) = (f64::from(alpha), f64::from(beta));
            vec![-beta / alpha, (1.0 - beta) / alpha]
        }
        Activation::ThresholdedRelu { alpha } => vec![alpha.into()],
        Activation::HardTanh { low, high } => vec![low.into(), high.into()],
        _ => Vec::new(),
    }
}

fn is_clear(function: Activation, x: f64) -> bool {
    // Towards a pole of tan all derivatives grow without bound: up to π/4 f''' stays below 16.
    if function == Activation::Tan && x.cos().abs() < FRAC_1_SQRT_2 {
        return false;
    }
    kinks(function).iter().all(|kink| (x - kink).abs() > MARGIN)
}

/// Names, sections and values of all parameters, as one vector that can be set again.
fn flat(parameters: &Parameters) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for name in parameters.names() {
        all.extend(parameters.view(name)?.download_f64()?);
    }
    Ok(all)
}

fn linear_backward_matches_finite_differences() -> Outcome {
    for (name, layer) in [("bias", Linear::new(3, 4)), ("no bias", Linear::new(3, 4).without_bias())] {
        let mut model = Model::new(5);
        let layer = model.add("linear", layer)?;
        let weights = flat(&model.initialize(&Device::reference())?)?;
        let (x, d_y) = (values(1, 2 * 2 * 3, 1.0), values(2, 2 * 2 * 4, 1.0));
        let point = [weights.clone(), x].concat();
        let run = |point: &[f64]| -> Result<f64> {
            let (weights, x) = point.split_at(weights.len());
            let y = layer
                .infer(&with_values(&model, &Device::reference(), weights)?, &reference(&[2, 2, 3], x)?)?;
            Ok(dot(&y.download_f64()?, &d_y))
        };
        let parameters = with_values(&model, &Device::reference(), &weights)?;
        let mut gradients = parameters.zero_gradients()?;
        let (_, trace) = layer.forward(&parameters, &reference(&[2, 2, 3], &point[weights.len()..])?)?;
        let d_x = trace.backward(&reference(&[2, 2, 4], &d_y)?, &mut gradients)?;
        let analytic = [all_gradients(&parameters, &gradients)?, d_x.download_f64()?].concat();
        check(&format!("linear, {name}"), &point, &analytic, run)?;
    }
    Ok(())
}

fn embedding_backward_matches_finite_differences() -> Outcome {
    let device = Device::reference();
    let mut model = Model::new(6);
    let layer = model.add("embedding", Embedding::new(4, 3))?;
    let weights = flat(&model.initialize(&device)?)?;
    // Token 2 is missing, token 1 comes three times.
    let tokens = Indices::from_slice(&device, &[3, 2], &[1, 0, 1, 3, 3, 1])?;
    let d_y = values(3, 18, 1.0);
    let parameters = with_values(&model, &Device::reference(), &weights)?;
    let mut gradients = parameters.zero_gradients()?;
    let (_, trace) = layer.forward(&parameters, &tokens)?;
    trace.backward(&reference(&[3, 2, 3], &d_y)?, &mut gradients)?;
    let analytic = all_gradients(&parameters, &gradients)?;
    assert_eq!(analytic[6..9], [0.0; 3], "a token that does not occur has no gradient");
    let op = ops::embedding_backward(&tokens, &reference(&[3, 2, 3], &d_y)?, 4)?;
    assert_eq!(op.download_f64()?, analytic, "layer and operation agree");
    check("embedding", &weights, &analytic, |weights| {
        let y = layer.infer(&with_values(&model, &Device::reference(), weights)?, &tokens)?;
        Ok(dot(&y.download_f64()?, &d_y))
    })
}

/// T, B, I and H of the recurrent cases.
const STEPS: usize = 3;
const BATCH: usize = 2;
const INPUTS: usize = 2;
const HIDDEN: usize = 3;

/// One recurrent case: a stack and everything it reads.
struct Recurrent {
    function: Activation,
    layers: usize,
    bias: bool,
    model: Model,
    layer: Layer<Rnn>,
    weights: usize,
    d_y: Vec<f64>,
    d_last: Vec<f64>,
}

impl Recurrent {
    fn new(function: Activation, layers: usize, bias: bool) -> Result<Self> {
        let mut model = Model::new(7);
        let stack = Rnn::new(Cell::Vanilla(function), INPUTS, HIDDEN).layers(layers);
        let layer = model.add("rnn", if bias { stack } else { stack.without_bias() })?;
        let weights = model.specs().iter().map(|spec| spec.shape.elements()).sum();
        let d_y = values(11, STEPS * BATCH * HIDDEN, 1.0);
        let d_last = values(12, layers * BATCH * HIDDEN, 1.0);
        Ok(Self { function, layers, bias, model, layer, weights, d_y, d_last })
    }

    /// Weights, x and the initial state as one vector, clear of all kinks.
    fn point(&self) -> Vec<f64> {
        let count = self.weights + STEPS * BATCH * INPUTS + self.layers * BATCH * HIDDEN;
        // Small, so that every pre-activation of three layers can keep away from the poles.
        let magnitude = if self.function == Activation::Tan { 0.5 } else { 1.0 };
        (1000..)
            .map(|seed| values(seed, count, magnitude))
            .find(|point| self.textbook(point).is_some())
            .unwrap_or_default()
    }

    fn split<'p>(&self, point: &'p [f64]) -> [&'p [f64]; 3] {
        let (weights, rest) = point.split_at(self.weights);
        let (x, initial) = rest.split_at(STEPS * BATCH * INPUTS);
        [weights, x, initial]
    }

    /// The outputs of the last layer by loops over single numbers; `None` if a pre-activation is near a kink.
    fn textbook(&self, point: &[f64]) -> Option<Vec<f64>> {
        let [mut weights, x, initial] = self.split(point);
        let mut take = |count: usize| {
            let (section, rest) = weights.split_at(count);
            weights = rest;
            section
        };
        let (mut input, mut width) = (x.to_vec(), INPUTS);
        for layer in 0..self.layers {
            let (w_ih, w_hh) = (take(HIDDEN * width), take(HIDDEN * HIDDEN));
            let bias = if self.bias { [take(HIDDEN), take(HIDDEN)] } else { [&[0.0; HIDDEN][..]; 2] };
            let mut output = vec![0.0; STEPS * BATCH * HIDDEN];
            for place in 0..STEPS * BATCH {
                let before = match place.checked_sub(BATCH) {
                    Some(earlier) => output[earlier * HIDDEN..][..HIDDEN].to_vec(),
                    None => initial[(layer * BATCH + place) * HIDDEN..][..HIDDEN].to_vec(),
                };
                for unit in 0..HIDDEN {
                    let from_input = dot(&w_ih[unit * width..][..width], &input[place * width..][..width]);
                    let from_state = dot(&w_hh[unit * HIDDEN..][..HIDDEN], &before);
                    let gate = from_input + from_state + bias[0][unit] + bias[1][unit];
                    if !is_clear(self.function, gate) {
                        return None;
                    }
                    output[place * HIDDEN + unit] = textbook_value(self.function, gate);
                }
            }
            (input, width) = (output, HIDDEN);
        }
        Some(input)
    }

    fn tensors(&self, point: &[f64]) -> Result<(Parameters, Tensor, State)> {
        let [weights, x, initial] = self.split(point);
        let parameters = with_values(&self.model, &Device::reference(), weights)?;
        let initial = State::from_hidden(&reference(&[self.layers, BATCH, HIDDEN], initial)?)?;
        Ok((parameters, reference(&[STEPS, BATCH, INPUTS], x)?, initial))
    }

    fn value(&self, point: &[f64]) -> Result<f64> {
        let (parameters, x, initial) = self.tensors(point)?;
        let (y, last) = self.layer.infer(&parameters, &x, &initial)?;
        Ok(dot(&y.download_f64()?, &self.d_y) + dot(&last.hidden().download_f64()?, &self.d_last))
    }

    fn analytic(&self, point: &[f64]) -> Result<Vec<f64>> {
        let (parameters, x, initial) = self.tensors(point)?;
        let mut gradients = parameters.zero_gradients()?;
        let (_, _, trace) = self.layer.forward(&parameters, &x, &initial)?;
        let d_y = reference(&[STEPS, BATCH, HIDDEN], &self.d_y)?;
        let d_last = State::from_hidden(&reference(&[self.layers, BATCH, HIDDEN], &self.d_last)?)?;
        let (d_x, d_initial) = trace.backward(&d_y, Some(&d_last), &mut gradients)?;
        let d_initial = d_initial.hidden().download_f64()?;
        Ok([all_gradients(&parameters, &gradients)?, d_x.download_f64()?, d_initial].concat())
    }
}

/// The functions of `Activation`'s table, written once more for this test alone.
fn textbook_value(function: Activation, x: f64) -> f64 {
    let elu = |alpha: f64| if x > 0.0 { x } else { alpha * (x.exp() - 1.0) };
    match function {
        Activation::Tanh => (1.0 - (-2.0 * x).exp()) / (1.0 + (-2.0 * x).exp()),
        Activation::Relu => x.max(0.0),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::LeakyRelu { slope } => {
            if x > 0.0 {
                x
            } else {
                f64::from(slope) * x
            }
        }
        Activation::Elu { alpha } => elu(alpha.into()),
        Activation::Selu => 1.050_700_987_355_480_5 * elu(1.673_263_242_354_377_2),
        Activation::Softplus => (1.0 + x.exp()).ln(),
        Activation::HardSigmoid { alpha, beta } => (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0),
        Activation::Softsign => x / (1.0 + x.abs()),
        Activation::Tan => x.sin() / x.cos(),
        Activation::Affine { alpha, beta } => f64::from(alpha) * x + f64::from(beta),
        Activation::ThresholdedRelu { alpha } => {
            if x >= alpha.into() {
                x
            } else {
                0.0
            }
        }
        Activation::HardTanh { low, high } => x.clamp(low.into(), high.into()),
        Activation::ScaledTanh { alpha, beta } => {
            f64::from(alpha) * textbook_value(Activation::Tanh, f64::from(beta) * x)
        }
        _ => x,
    }
}

fn recurrent_cases() -> Result<Vec<(String, Recurrent)>> {
    let mut cases = Vec::new();
    for function in Activation::ALL {
        for layers in 1..=3 {
            for bias in [true, false] {
                let name = format!("{}, {layers} layers, bias {bias}", function.name());
                cases.push((name, Recurrent::new(function, layers, bias)?));
            }
        }
    }
    Ok(cases)
}

fn rnn_forward_matches_the_textbook_loop_for_every_activation() -> Outcome {
    for (name, case) in recurrent_cases()? {
        let point = case.point();
        let expected = case.textbook(&point).ok_or("a point near a kink")?;
        let (parameters, x, initial) = case.tensors(&point)?;
        let (y, last) = case.layer.infer(&parameters, &x, &initial)?;
        // A handful of roundings a step, in numbers of order one.
        let allowed = by_entry(100.0 * f64::EPSILON, &expected);
        let y = y.download_f64()?;
        crate::support::expect_close(&name, &y, &expected, allowed)?;
        let last = last.hidden().download_f64()?;
        let (own, tail) = (&last[(case.layers - 1) * BATCH * HIDDEN..], &y[(STEPS - 1) * BATCH * HIDDEN..]);
        assert_eq!(own, tail, "{name}: the last layer's final state is its last output");
    }
    Ok(())
}

fn rnn_backward_matches_finite_differences() -> Outcome {
    for (name, case) in recurrent_cases()? {
        let point = case.point();
        check(&name, &point, &case.analytic(&point)?, |point| case.value(point))?;
    }
    Ok(())
}

fn rnn_without_final_gradient_equals_one_of_zero() -> Outcome {
    let case = Recurrent::new(Activation::Tanh, 2, true)?;
    let (parameters, x, initial) = case.tensors(&case.point())?;
    let d_y = reference(&[STEPS, BATCH, HIDDEN], &case.d_y)?;
    let zero = case.layer.zero_state(&Device::reference(), BATCH)?;
    let mut results = Vec::new();
    for d_state in [None, Some(&zero)] {
        let mut gradients = parameters.zero_gradients()?;
        let (_, _, trace) = case.layer.forward(&parameters, &x, &initial)?;
        let (d_x, d_initial) = trace.backward(&d_y, d_state, &mut gradients)?;
        let d_initial = d_initial.hidden().download_f64()?;
        results.push((all_gradients(&parameters, &gradients)?, d_x.download_f64()?, d_initial));
    }
    assert_eq!(results[0], results[1]);
    Ok(())
}

fn backward_adds_to_gradients() -> Outcome {
    let case = Recurrent::new(Activation::Tanh, 2, true)?;
    let (parameters, x, initial) = case.tensors(&case.point())?;
    let d_y = reference(&[STEPS, BATCH, HIDDEN], &case.d_y)?;
    let mut gradients = parameters.zero_gradients()?;
    let mut after = Vec::new();
    for _ in 0..2 {
        let (_, _, trace) = case.layer.forward(&parameters, &x, &initial)?;
        trace.backward(&d_y, None, &mut gradients)?;
        after.push(all_gradients(&parameters, &gradients)?);
    }
    let twice: Vec<f64> = after[0].iter().map(|value| 2.0 * value).collect();
    let allowed = 100.0 * f64::EPSILON * largest(&twice);
    crate::support::expect_close("two passes", &after[1], &twice, allowed)
}

fn unary_backward_matches_finite_differences() -> Outcome {
    for function in Activation::ALL {
        let x: Vec<f64> = values(20, 60, 4.0).into_iter().filter(|&x| is_clear(function, x)).collect();
        let d_y = values(21, x.len(), 1.0);
        let [x_tensor, d_y_tensor] = [reference(&[x.len()], &x)?, reference(&[x.len()], &d_y)?];
        let y = ops::unary(&x_tensor, function)?;
        let expected: Vec<f64> = x.iter().map(|&x| textbook_value(function, x)).collect();
        crate::support::expect_close(
            function.name(),
            &y.download_f64()?,
            &expected,
            100.0 * f64::EPSILON * 4.0,
        )?;
        let d_x = ops::unary_backward(&x_tensor, &y, &d_y_tensor, function)?;
        check(function.name(), &x, &d_x.download_f64()?, |x| {
            let y = ops::unary(&reference(&[x.len()], x)?, function)?;
            Ok(dot(&y.download_f64()?, &d_y))
        })?;
    }
    Ok(())
}

fn softmax_backward_matches_finite_differences() -> Outcome {
    let sizes = [2, 3, 5];
    let (x, d_y) = (values(22, 30, 3.0), values(23, 30, 1.0));
    let d_y_tensor = reference(&sizes, &d_y)?;
    let y = ops::softmax(&reference(&sizes, &x)?)?;
    let d_x = ops::softmax_backward(&y, &d_y_tensor)?;
    check("softmax", &x, &d_x.download_f64()?, |x| {
        Ok(dot(&ops::softmax(&reference(&sizes, x)?)?.download_f64()?, &d_y))
    })?;
    let y = ops::log_softmax(&reference(&sizes, &x)?)?;
    let d_x = ops::log_softmax_backward(&y, &d_y_tensor)?;
    check("log softmax", &x, &d_x.download_f64()?, |x| {
        Ok(dot(&ops::log_softmax(&reference(&sizes, x)?)?.download_f64()?, &d_y))
    })
}

/// Every mixture of class weights and smoothing.
fn losses() -> Result<Vec<(String, CrossEntropy)>> {
    let weights = || reference(&[5], &[0.5, 2.0, 1.0, 0.25, 1.5]);
    Ok(vec![
        ("plain".to_owned(), CrossEntropy::default()),
        ("weighted".to_owned(), CrossEntropy::default().weights(weights()?)),
        ("smoothed".to_owned(), CrossEntropy::default().smoothing(0.2)),
        ("weighted and smoothed".to_owned(), CrossEntropy::default().weights(weights()?).smoothing(0.2)),
    ])
}

fn cross_entropy_gradient_matches_finite_differences() -> Outcome {
    let sizes = [3, 2, 5];
    let x = values(24, 30, 2.0);
    let labels = Indices::from_slice(&Device::reference(), &[3, 2], &[4, IGNORED, 0, 1, 1, IGNORED])?;
    for (name, loss) in losses()? {
        for reduction in [Reduction::Mean, Reduction::Sum] {
            let (_, d_x) = loss.reduced(&reference(&sizes, &x)?, &labels, reduction)?;
            let d_x = d_x.download_f64()?;
            assert_eq!(d_x[5..10], [0.0; 5], "{name}: an ignored row has no gradient");
            check(&format!("{name}, {reduction:?}"), &x, &d_x, |x| {
                Ok(loss.reduced(&reference(&sizes, x)?, &labels, reduction)?.0.download_f64()?[0])
            })?;
        }
    }
    Ok(())
}

fn cross_entropy_rows_gradient_matches_finite_differences() -> Outcome {
    let sizes = [3, 2, 5];
    let (x, d_rows) = (values(25, 30, 2.0), values(26, 6, 1.0));
    let labels = Indices::from_slice(&Device::reference(), &[3, 2], &[2, 3, IGNORED, 1, 0, 4])?;
    for (name, loss) in losses()? {
        let x_tensor = reference(&sizes, &x)?;
        let rows = loss.rows(&x_tensor, &labels)?.download_f64()?;
        assert_eq!(rows[2], 0.0, "{name}: an ignored row has no loss");
        let sum = loss.reduced(&x_tensor, &labels, Reduction::Sum)?.0.download_f64()?[0];
        let allowed = 100.0 * f64::EPSILON * sum;
        crate::support::expect_close(&name, &[rows.iter().sum()], &[sum], allowed)?;
        let d_x = loss.rows_backward(&x_tensor, &labels, &reference(&[3, 2], &d_rows)?)?;
        check(&format!("{name}, rows"), &x, &d_x.download_f64()?, |x| {
            Ok(dot(&loss.rows(&reference(&sizes, x)?, &labels)?.download_f64()?, &d_rows))
        })?;
    }
    Ok(())
}

/// Perturbs every parameter of `model`, whose input is `input` and whose loss is the mean cross-entropy.
fn check_model<'a>(what: &str, model: &Model, input: impl Into<Input<'a>>, labels: &Indices) -> Outcome {
    let device = Device::reference();
    let input = input.into();
    let batch = labels.shape().dimensions()[1];
    let state = model.zero_state(&device, batch)?;
    let parameters = model.initialize(&device)?;
    let (logits, _, trace) = model.forward(&parameters, input, &state)?;
    let (_, d_logits) = refrain::loss::cross_entropy(&logits, labels)?;
    let mut gradients = parameters.zero_gradients()?;
    trace.backward(&d_logits, &mut gradients)?;
    check(what, &flat(&parameters)?, &all_gradients(&parameters, &gradients)?, |all| {
        let (logits, _) = model.infer(&with_values(model, &Device::reference(), all)?, input, &state)?;
        Ok(refrain::loss::cross_entropy(&logits, labels)?.0.download_f64()?[0])
    })
}

fn whole_model_gradients_match_finite_differences() -> Outcome {
    let device = Device::reference();
    let inputs = Indices::from_slice(&device, &[4, 2], &tokens(30, 8, 5))?;
    let labels = Indices::from_slice(&device, &[4, 2], &tokens(31, 8, 5))?;

    let mut embedded = Model::new(8);
    embedded.add("embedding", Embedding::new(5, 3))?;
    embedded.add("rnn", Rnn::new(Cell::tanh(), 3, 4).layers(2))?;
    embedded.add("head", Linear::new(4, 5))?;
    check_model("embedding, two layers, head", &embedded, &inputs, &labels)?;

    let mut one_hot = Model::new(9);
    one_hot.add("tokens", OneHot::new(5))?;
    one_hot.add("lower", Rnn::new(Cell::Vanilla(Activation::Sigmoid), 5, 3))?;
    one_hot.add("between", Linear::new(3, 4).without_bias())?;
    one_hot.add("upper", Rnn::new(Cell::tanh(), 4, 3).without_bias())?;
    one_hot.add("head", Linear::new(3, 5))?;
    check_model("one-hot, two stacks, head", &one_hot, &inputs, &labels)?;

    let mut features = Model::new(10);
    features.add("first", Linear::new(3, 4))?;
    features.add("rnn", Rnn::new(Cell::tanh(), 4, 5))?;
    let x = random(&device, 32, &[4, 2, 3], 1.0)?;
    check_model("linear first", &features, &x, &labels)
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        linear_backward_matches_finite_differences,
        embedding_backward_matches_finite_differences,
        rnn_forward_matches_the_textbook_loop_for_every_activation,
        rnn_backward_matches_finite_differences,
        rnn_without_final_gradient_equals_one_of_zero,
        backward_adds_to_gradients,
        unary_backward_matches_finite_differences,
        softmax_backward_matches_finite_differences,
        cross_entropy_gradient_matches_finite_differences,
        cross_entropy_rows_gradient_matches_finite_differences,
        whole_model_gradients_match_finite_differences,
    );
}
