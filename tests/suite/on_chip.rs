//! Layers whose workgroups keep W_hh on chip and wait for each other: the same bits as step by step, whether they wait in
//! vain or not. Software adapters run few workgroups at once or one after the other, so that both happen here.

use refrain::nn::{Cell, Draw, Model, Rnn, Sequences};
use refrain::{Device, GpuOptions, Indices, OnChip, RecurrentTier, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_gpu};
use crate::support::{all_gradients, expect_same_bits, random};

const INPUTS: usize = 3;
const STEPS: usize = 7;

fn open(adapter: &Adapter, recurrent: RecurrentTier, on_chip: OnChip) -> Result<Device> {
    adapter.open_with(&GpuOptions { recurrent, on_chip, ..GpuOptions::default() })
}

fn step_by_step(adapter: &Adapter) -> Result<Device> {
    open(adapter, RecurrentTier::Steps, OnChip::default())
}

/// A device that takes `workgroups` for able to wait for each other, and has `patience`.
fn on_chip(adapter: &Adapter, workgroups: u32, patience: u32) -> Result<Device> {
    let options = OnChip { workgroups: Some(workgroups), patience: Some(patience) };
    open(adapter, RecurrentTier::OnChip, options)
}

/// A layer, and whether its batch has rows of several lengths and resets.
#[derive(Clone, Debug)]
struct Case {
    layer: Rnn,
    batch: usize,
    ragged: bool,
}

/// Every cell and every option that reaches the kernels, over sizes around those of the division.
fn cases() -> Vec<Case> {
    let of = |cell, units| Rnn::new(cell, INPUTS, units);
    let case = |layer, batch, ragged| Case { layer, batch, ragged };
    vec![
        case(of(Cell::tanh(), 1), 1, false),
        case(of(Cell::tanh(), 33), 5, true),
        case(of(Cell::tanh(), 17).truncated(3).bidirectional(), 4, false),
        case(of(Cell::Gru, 16).recurrent_dropout(0.3), 9, false),
        case(of(Cell::Gru, 31).without_bias().reverse(), 3, true),
        case(of(Cell::Lstm, 15).peepholes().bidirectional(), 6, true),
        case(of(Cell::Lstm, 20).coupled().clip_gradient(0.01), 17, true),
        case(of(Cell::Lstm, 9).zoneout(0.2, 0.1).layers(2), 2, false),
    ]
}

/// Outputs, last states, gradients of everything.
fn train(device: &Device, case: &Case) -> Result<Vec<f32>> {
    let mut model = Model::new(6);
    let rnn = model.add("rnn", case.layer.clone())?;
    let parameters = model.initialize(device)?;
    let mut gradients = parameters.zero_gradients()?;
    let x = random(device, 51, &[STEPS, case.batch, INPUTS], 1.0)?;
    let d_y = random(device, 52, &[STEPS, case.batch, rnn.description().outputs()], 1.0)?;
    let lengths: Vec<u32> = (0..case.batch).map(|row| (row * 5 % STEPS) as u32 + 1).collect();
    let lengths = Indices::from_slice(device, &[case.batch], &lengths)?;
    let resets: Vec<u32> = (0..STEPS * case.batch).map(|place| u32::from(place % 6 == 4)).collect();
    let resets = Indices::from_slice(device, &[STEPS, case.batch], &resets)?;
    let sequences = match case.ragged {
        true => Sequences::ragged(&lengths).resets(&resets),
        false => Sequences::whole(),
    };
    let state = rnn.zero_state(device, case.batch)?;
    let sequences = sequences.training(Draw::new(3, 9));
    let (y, last, trace) = rnn.forward_sequences(&parameters, &x, &state, sequences)?;
    let (d_x, d_initial) = trace.backward(&d_y, Some(&last), &mut gradients)?;
    let parts = [y, last.hidden(), d_x, d_initial.hidden()];
    let mut values = parts.iter().map(Tensor::download).collect::<Result<Vec<_>>>()?.concat();
    values.extend(all_gradients(&parameters, &gradients)?.into_iter().map(|value| value as f32));
    Ok(values)
}

/// As many workgroups as the self-test finds.
fn layers_on_chip_have_the_bits_of_steps(adapter: &Adapter) -> Outcome {
    let single = step_by_step(adapter)?;
    let device = open(adapter, RecurrentTier::OnChip, OnChip::default())?;
    for case in cases() {
        expect_same_bits(&format!("{case:?}"), &train(&device, &case)?, &train(&single, &case)?)?;
    }
    let report = device.on_chip().expect("a GPU");
    let found = report.workgroups.expect("layers have asked");
    assert!(found == 0 || found.is_power_of_two() && found > 1, "{report:?}");
    Ok(())
}

fn whoever_waits_in_vain_is_completed_to_the_same_bits(adapter: &Adapter) -> Outcome {
    let single = step_by_step(adapter)?;
    for case in cases() {
        let expected = train(&single, &case)?;
        for patience in 0..2 {
            // Whatever has stopped, the next attempt is made by fewer.
            let device = on_chip(adapter, 1024, patience)?;
            for attempt in 0..3 {
                let what = format!("{case:?}, patience {patience}, attempt {attempt}");
                expect_same_bits(&what, &train(&device, &case)?, &expected)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_gpu!(
        suite,
        layers_on_chip_have_the_bits_of_steps,
        whoever_waits_in_vain_is_completed_to_the_same_bits,
    );
}
