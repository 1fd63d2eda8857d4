//! Every analytic gradient against central finite differences, in 64-bit floats on the CPU reference.
//!
//! (f(x + h) − f(x − h)) / 2h differs from f'(x) by h² f'''/6 from the Taylor series and by about ε |f| / h
//! from rounding. h = ∛ε makes the two equal: each is about 4·10⁻¹¹ times a constant of the function.
//! Recurrent layers are the matter of `oracle`.

use libtest_mimic::Failed;
use refrain::loss::CrossEntropy;
use refrain::nn::{Cell, Embedding, Input, Linear, Model, OneHot, Parameters, Rnn};
use refrain::ops::{self, Activation, Reduction};
use refrain::{Device, IGNORED, Indices, Result, Tensor};

use crate::adapters::{Outcome, Suite, on_cpu};
use crate::oracle::layer::apply;
use crate::oracle::number::{self, Number};
use crate::support::{all_gradients, dot, expect_close, largest, random, tokens, values, with_values};

/// Bounds f'''/6 and the number of roundings in f, each relative to the size of f, for these small cases.
const CONDITION: f64 = 100.0;

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

fn reference(dimensions: &[usize], data: &[f64]) -> Result<Tensor> {
    Tensor::from_slice_f64(&Device::reference(), dimensions, data)
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

fn backward_adds_to_gradients() -> Outcome {
    let device = Device::reference();
    let mut model = Model::new(7);
    let layer = model.add("rnn", Rnn::new(Cell::tanh(), 2, 3).layers(2))?;
    let parameters = model.initialize(&device)?;
    let [x, d_y] = [(11, 2), (12, 3)].map(|(stream, width)| random(&device, stream, &[3, 2, width], 1.0));
    let (x, d_y, zero) = (x?, d_y?, layer.zero_state(&device, 2)?);
    let mut gradients = parameters.zero_gradients()?;
    let mut after = Vec::new();
    for _ in 0..2 {
        let (_, _, trace) = layer.forward(&parameters, &x, &zero)?;
        trace.backward(&d_y, None, &mut gradients)?;
        after.push(all_gradients(&parameters, &gradients)?);
    }
    let twice: Vec<f64> = after[0].iter().map(|value| 2.0 * value).collect();
    expect_close("two passes", &after[1], &twice, 100.0 * f64::EPSILON * largest(&twice))
}

/// Every function and its derivative, by the equations of the oracle, at points clear of kinks.
fn functions_and_derivatives_are_those_of_the_equations() -> Outcome {
    for function in Activation::ALL {
        number::take_margin();
        let (mut x, mut expected, mut derivatives) = (Vec::new(), Vec::new(), Vec::new());
        for point in values(20, 60, 4.0) {
            number::clear();
            let number = Number::constant(point);
            let y = apply(function, number);
            if number::take_margin() > 1e-9 {
                x.push(point);
                expected.push(y.value);
                derivatives.push(number::derivatives(y).at(number));
            }
        }
        let name = function.name();
        assert!(x.len() > 20, "{name}: only {} points", x.len());
        let d_y = values(21, x.len(), 1.0);
        let [x, d_y_tensor] = [&x, &d_y].map(|values| reference(&[values.len()], values));
        let (x, d_y_tensor) = (x?, d_y_tensor?);
        let y = ops::unary(&x, function)?;
        let d_x = ops::unary_backward(&x, &y, &d_y_tensor, function)?;
        let allowed = 100.0 * f64::EPSILON * 4.0;
        expect_close(name, &y.download_f64()?, &expected, allowed)?;
        let expected: Vec<f64> =
            derivatives.iter().zip(&d_y).map(|(derivative, d_y)| derivative * d_y).collect();
        expect_close(&format!("{name}: d_x"), &d_x.download_f64()?, &expected, allowed)?;
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
        expect_close(&name, &[rows.iter().sum()], &[sum], allowed)?;
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
        backward_adds_to_gradients,
        functions_and_derivatives_are_those_of_the_equations,
        softmax_backward_matches_finite_differences,
        cross_entropy_gradient_matches_finite_differences,
        cross_entropy_rows_gradient_matches_finite_differences,
        whole_model_gradients_match_finite_differences,
    );
}
