//! Training as a whole: devices agree, runs repeat, tasks are learned, windows of time carry their state.

use refrain::loss::cross_entropy;
use refrain::nn::{Cell, Linear, Model, OneHot, Rnn};
use refrain::ops;
use refrain::random::Stream;
use refrain::{Device, IGNORED, Indices, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_devices, on_gpu};
use crate::support::{
    Optimizer, Rule, Setup, all_gradients, all_parameters, expect_close, expect_same_bits, largest, random,
    tokens, wide,
};

/// How far two devices may drift apart in 50 steps, relative to the loss.
///
/// A loss is a mean of sums of some hundred terms, each rounded to ε = 1.2·10⁻⁷: about 10⁻⁶ at the first step. Each
/// update moves the weights by at most the learning rate, wherever Adam divides a small gradient by its own size,
/// so that the difference can grow by a few per cent a step: e^{50 · 0.05} = 12. A hundred roundings by twelve.
const DRIFT: f64 = 1e-4;

fn expect_same_curve(what: &str, one: &[f32], two: &[f32]) -> Outcome {
    assert!(one.iter().zip(two).all(|(a, b)| a.is_finite() && b.is_finite()), "{what}: {one:?} {two:?}");
    expect_close(what, &wide(one), &wide(two), DRIFT * largest(&wide(one)))
}

/// The rate at which each rule trains the small model well.
const RULES: [(Rule, f64); 3] =
    [(Rule::Adam, 0.01), (Rule::Sgd { momentum: 0.0 }, 1.0), (Rule::Sgd { momentum: 0.9 }, 0.2)];

fn setup(rule: Rule, learning_rate: f64) -> Setup {
    Setup { rule, learning_rate, ..Setup::SMALL }
}

fn sgd_and_adam_both_train() -> Outcome {
    for (rule, rate) in RULES {
        let setup = setup(rule, rate);
        let losses = setup.train(&Device::cpu(), 200)?.losses;
        let last = losses[190..].iter().sum::<f32>() / 10.0;
        // Guessing costs ln 11 = 2.4 nats. The text's noise alone costs 0.38: tokens go one way in 7 of 8 cases.
        let guess = (setup.vocabulary as f32).ln();
        assert!((losses[0] - guess).abs() < 0.5, "{rule:?} starts at {}", losses[0]);
        assert!(last < 0.4 * guess, "{rule:?} ends at {last}");
    }
    Ok(())
}

fn f32_follows_the_f64_oracle_for_50_steps() -> Outcome {
    for (rule, rate) in RULES {
        let setup = setup(rule, rate);
        let (one, two) = (setup.train(&Device::reference(), 50)?, setup.train(&Device::cpu(), 50)?);
        expect_same_curve(&format!("{rule:?}"), &one.losses, &two.losses)?;
    }
    Ok(())
}

fn gpu_follows_the_cpu_for_50_steps(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    for (rule, rate) in RULES {
        let setup = setup(rule, rate);
        let (one, two) = (setup.train(&Device::cpu(), 50)?, setup.train(&device, 50)?);
        expect_same_curve(&format!("{rule:?}"), &one.losses, &two.losses)?;
    }
    Ok(())
}

fn repeats_bit_for_bit(device: &Device, again: &Device) -> Outcome {
    let setup = Setup::SMALL;
    let (one, two) = (setup.train(device, 30)?, setup.train(again, 30)?);
    one.expect_same(&two)
}

fn cpu_repeats_bit_for_bit() -> Outcome {
    repeats_bit_for_bit(&Device::cpu(), &Device::cpu())
}

fn gpu_repeats_bit_for_bit(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    // Once with memory that held other values before, once on a device opened anew.
    repeats_bit_for_bit(&device, &device)?;
    repeats_bit_for_bit(&device, &adapter.open_anew()?)
}

fn another_seed_gives_another_model() -> Outcome {
    let setup = Setup::SMALL;
    let values = |seed: u64| all_parameters(&setup.model(seed)?.initialize(&Device::cpu())?);
    assert_eq!(values(1)?, values(1)?);
    assert_ne!(values(1)?, values(2)?);
    Ok(())
}

fn initial_values_are_the_same_on_every_device(adapter: &Adapter) -> Outcome {
    let model = Setup::SMALL.model(6)?;
    let on_cpu = all_parameters(&model.initialize(&Device::cpu())?)?;
    let on_gpu = all_parameters(&model.initialize(&adapter.open()?)?)?;
    expect_same_bits("parameters", &on_cpu, &on_gpu)
}

/// Sequences of the copy-memory task (Hochreiter & Schmidhuber 1997): three symbols, four blanks, a signal, and
/// then the three symbols must be said again. Labels before the signal are left out.
struct Copies {
    inputs: Vec<u32>,
    labels: Vec<u32>,
}

const SYMBOLS: u32 = 4;
const BLANK: u32 = SYMBOLS;
const SIGNAL: u32 = SYMBOLS + 1;
const TO_COPY: usize = 3;
const PAUSE: usize = 4;
const COPY_STEPS: usize = TO_COPY + PAUSE + TO_COPY;
const COPY_BATCH: usize = 32;

impl Copies {
    fn new(round: u64) -> Self {
        let stream = Stream::new(9, round);
        let (mut inputs, mut labels) =
            (vec![BLANK; COPY_STEPS * COPY_BATCH], vec![IGNORED; COPY_STEPS * COPY_BATCH]);
        for row in 0..COPY_BATCH {
            for place in 0..TO_COPY {
                let symbol = stream.bits((row * TO_COPY + place) as u64) % SYMBOLS;
                inputs[place * COPY_BATCH + row] = symbol;
                labels[(TO_COPY + PAUSE + place) * COPY_BATCH + row] = symbol;
            }
            inputs[(TO_COPY + PAUSE) * COPY_BATCH + row] = SIGNAL;
        }
        Self { inputs, labels }
    }
}

fn copy_memory_is_learned() -> Outcome {
    let device = Device::cpu();
    let mut model = Model::new(12);
    model.add("tokens", OneHot::new(SIGNAL as usize + 1))?;
    model.add("rnn", Rnn::new(Cell::tanh(), SIGNAL as usize + 1, 48))?;
    model.add("head", Linear::new(48, SYMBOLS as usize))?;
    let mut parameters = model.initialize(&device)?;
    let mut optimizer = Optimizer::new(Rule::Adam, 0.003, &parameters)?;
    let state = model.zero_state(&device, COPY_BATCH)?;
    let sizes = [COPY_STEPS, COPY_BATCH];
    let mut last = Vec::new();
    for round in 0..500 {
        let copies = Copies::new(round);
        let inputs = Indices::from_slice(&device, &sizes, &copies.inputs)?;
        let labels = Indices::from_slice(&device, &sizes, &copies.labels)?;
        let (logits, _, trace) = model.forward(&parameters, &inputs, &state)?;
        let (loss, d_logits) = cross_entropy(&logits, &labels)?;
        let mut gradients = parameters.zero_gradients()?;
        trace.backward(&d_logits, &mut gradients)?;
        gradients.clip_norm(1.0)?;
        optimizer.step(&mut parameters, &gradients)?;
        if round >= 490 {
            last.push(loss.read()?);
        }
    }
    let mean = last.iter().sum::<f32>() / last.len() as f32;
    // Without memory no one can do better than ln 4 = 1.39 nats a symbol.
    let memoryless = (SYMBOLS as f32).ln();
    assert!(mean < 0.1 * memoryless, "{mean} nats a symbol, {memoryless} without memory");
    Ok(())
}

fn windows_of_tokens_follow_each_other() -> Outcome {
    let setup = Setup::SMALL;
    let windows = setup.windows()?;
    for index in 0..windows.count() - 1 {
        let (one, two) = (windows.window(index), windows.window(index + 1));
        assert_eq!((one.begins, two.begins), (index == 0, false));
        let after = &one.targets[(one.steps - 1) * one.batch..];
        assert_eq!(after, &two.tokens[..two.batch], "the last targets are the next inputs");
        assert_eq!(one.tokens[one.batch..], one.targets[..one.targets.len() - one.batch]);
    }
    assert_eq!(windows.window(windows.count()), windows.window(0));
    assert!(windows.window(windows.count()).begins);
    Ok(())
}

/// One pass by [`Model::forward`] and one with every trace threaded by hand.
fn model_equals_layers_called_by_hand(device: &Device) -> Outcome {
    let mut model = Model::new(14);
    let embedding = model.add("embedding", refrain::nn::Embedding::new(9, 6))?;
    let lower = model.add("lower", Rnn::new(Cell::tanh(), 6, 10))?;
    let between = model.add("between", Linear::new(10, 8))?;
    let upper = model.add("upper", Rnn::new(Cell::relu(), 8, 7).layers(2))?;
    let head = model.add("head", Linear::new(7, 9).without_bias())?;
    let parameters = model.initialize(device)?;
    let inputs = Indices::from_slice(device, &[5, 3], &tokens(62, 15, 9))?;
    let labels = Indices::from_slice(device, &[5, 3], &tokens(63, 15, 9))?;

    let state = model.zero_state(device, 3)?;
    let (logits, next, trace) = model.forward(&parameters, &inputs, &state)?;
    let (loss, d_logits) = cross_entropy(&logits, &labels)?;
    let mut gradients = parameters.zero_gradients()?;
    trace.backward(&d_logits, &mut gradients)?;
    let (inferred, _) = model.infer(&parameters, &inputs, &state)?;
    expect_same_bits("infer", &logits.download()?, &inferred.download()?)?;

    let (x, embedding_trace) = embedding.forward(&parameters, &inputs)?;
    let (y, lower_next, lower_trace) = lower.forward(&parameters, &x, &lower.zero_state(device, 3)?)?;
    let (y, between_trace) = between.forward(&parameters, &y)?;
    let (y, upper_next, upper_trace) = upper.forward(&parameters, &y, &upper.zero_state(device, 3)?)?;
    let (y, head_trace) = head.forward(&parameters, &y)?;
    let (hand_loss, d_y) = cross_entropy(&y, &labels)?;
    let mut by_hand = parameters.zero_gradients()?;
    let d_y = head_trace.backward(&d_y, &mut by_hand)?;
    let (d_y, _) = upper_trace.backward(&d_y, None, &mut by_hand)?;
    let d_y = between_trace.backward(&d_y, &mut by_hand)?;
    let (d_x, _) = lower_trace.backward(&d_y, None, &mut by_hand)?;
    embedding_trace.backward(&d_x, &mut by_hand)?;

    expect_same_bits("losses", &loss.download()?, &hand_loss.download()?)?;
    for (state, hand) in next.states().iter().zip([&lower_next, &upper_next]) {
        expect_same_bits("states", &state.hidden().download()?, &hand.hidden().download()?)?;
    }
    let (all, by_hand) = (all_gradients(&parameters, &gradients)?, all_gradients(&parameters, &by_hand)?);
    assert!(largest(&all) > 0.0);
    assert_eq!(all, by_hand, "gradients");
    Ok(())
}

/// ‖g‖ after clipping, of a gradient that is larger than `max_norm` and of one that is smaller.
fn clipping_scales_only_what_is_too_long() -> Outcome {
    let device = Device::cpu();
    let mut model = Model::new(15);
    let layer = model.add("linear", Linear::new(5, 4))?;
    let parameters = model.initialize(&device)?;
    for (max_norm, scaled) in [(0.01, true), (1e6, false)] {
        let mut gradients = parameters.zero_gradients()?;
        let (_, trace) = layer.forward(&parameters, &random(&device, 64, &[3, 5], 1.0)?)?;
        trace.backward(&random(&device, 65, &[3, 4], 1.0)?, &mut gradients)?;
        let before = all_gradients(&parameters, &gradients)?;
        let norm = f64::from(gradients.clip_norm(max_norm)?.read()?);
        let after = all_gradients(&parameters, &gradients)?;
        assert!(norm > 0.01 && norm < 1e6, "{norm}");
        let factor = if scaled { f64::from(max_norm) / (norm + 1e-6) } else { 1.0 };
        let expected: Vec<f64> = before.iter().map(|value| value * factor).collect();
        // Three roundings of 32 bits: norm, factor, product.
        expect_close("clipped", &after, &expected, 4.0 * f64::from(f32::EPSILON) * largest(&expected))?;
    }
    Ok(())
}

fn a_loss_may_be_read_in_any_order(adapter: &Adapter) -> Outcome {
    let device = adapter.open()?;
    let sums: Vec<Tensor> = (1..=20)
        .map(|index| ops::sum(&Tensor::from_slice(&device, &[2], &[index as f32, 1.0])?))
        .collect::<Result<_>>()?;
    for (place, sum) in sums.iter().enumerate().rev() {
        assert_eq!(sum.read()?, place as f32 + 2.0);
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        sgd_and_adam_both_train,
        f32_follows_the_f64_oracle_for_50_steps,
        cpu_repeats_bit_for_bit,
        another_seed_gives_another_model,
        copy_memory_is_learned,
        windows_of_tokens_follow_each_other,
        clipping_scales_only_what_is_too_long,
    );
    on_devices!(suite, model_equals_layers_called_by_hand);
    on_gpu!(
        suite,
        gpu_follows_the_cpu_for_50_steps,
        gpu_repeats_bit_for_bit,
        initial_values_are_the_same_on_every_device,
        a_loss_may_be_read_in_any_order,
    );
}
