//! What a model says that it costs, in multiplications and in bytes of a trace, is what it takes.

use refrain::nn::{Cell, Embedding, Linear, Merge, Model, OneHot, RandomKey, Rnn, Sequences};
use refrain::{Device, Error, Result, Tensor};

use super::{BATCH, STEPS};
use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu};
use crate::support::{all_gradients, random};

/// What one more trace keeps of device memory, once all passing buffers are there; all sizes are powers of two, which the
/// pool gives without waste.
fn bytes_of_a_trace(adapter: &Adapter, model: &Model, sizes: [usize; 3]) -> Result<u64> {
    let device = adapter.open()?;
    // What a model before has let go of would be taken first.
    device.release_unused()?;
    let parameters = model.initialize(&device)?;
    let mut held = Vec::new();
    let mut bytes = Vec::new();
    for step in 0..6 {
        let x = Tensor::zeros(&device, &sizes)?;
        let state = model.zero_state(&device, sizes[1])?;
        let sequences = Sequences::whole().training(RandomKey::new(1, step));
        let (y, _, trace) = model.forward_sequences(&parameters, &x, &state, sequences)?;
        y.download()?;
        held.push(trace);
        bytes.push(device.counters().bytes);
    }
    assert_eq!(bytes[5] - bytes[4], bytes[4] - bytes[3], "{bytes:?} has not settled");
    Ok(bytes[5] - bytes[4])
}

fn a_trace_keeps_the_bytes_that_the_cost_says(adapter: &Adapter) -> Outcome {
    const SIZES: [usize; 3] = [8, 16, 32];
    let stack = |cell| Rnn::new(cell, 32, 32);
    for (name, lower) in [
        ("plain", stack(Cell::tanh())),
        ("lstm", stack(Cell::Lstm)),
        ("deep", stack(Cell::Lstm).layers(2)),
        ("dropped", stack(Cell::tanh()).layers(2).dropout(0.5)),
        ("masked", stack(Cell::Lstm).layers(2).input_dropout(0.5).weight_drop(0.5)),
        ("both", stack(Cell::tanh()).bidirectional().merge(Merge::Sum).residual()),
    ] {
        let mut model = Model::new(1);
        model.add("first", Linear::new(32, 32))?;
        let outputs = lower.outputs();
        model.add("rnn", lower)?;
        model.add("head", Linear::new(outputs, 8))?;
        let cost = model.cost(SIZES[0], SIZES[1])?;
        assert_eq!(bytes_of_a_trace(adapter, &model, SIZES)?, cost.trace_bytes, "{name}");
    }
    Ok(())
}

/// Of a model that reads data and of a stack asked for no more, the gradients of the parameters have the same bits as with the
/// gradient at the input, for fewer multiplications.
fn gradients_of_data_are_not_computed() -> Outcome {
    let device = Device::cpu();
    let stacks: [fn(Rnn) -> Rnn; 3] =
        [|stack| stack, |stack| stack.bidirectional().layers(2), |stack| stack.residual().checkpointed(1)];
    for build in stacks {
        let mut model = Model::new(3);
        let layer = model.add("rnn", build(Rnn::new(Cell::Gru, 5, 5)))?;
        let parameters = model.initialize(&device)?;
        let x = random(&device, 40, &[STEPS, BATCH, 5], 1.0)?;
        let d_y = random(&device, 41, &[STEPS, BATCH, layer.description().outputs()], 1.0)?;
        let zero = layer.zero_state(&device, BATCH)?;
        let pass = || layer.forward(&parameters, &x, &zero).map(|(_, _, trace)| trace);

        let mut expected = parameters.zero_gradients()?;
        pass()?.backward(&d_y, None, &mut expected)?;
        let mut found = parameters.zero_gradients()?;
        pass()?.backward_parameters(&d_y, &mut found)?;
        let mut of_model = parameters.zero_gradients()?;
        let (_, _, trace) = model.forward(&parameters, &x, &model.zero_state(&device, BATCH)?)?;
        trace.backward(&d_y, &mut of_model)?;
        let expected = all_gradients(&parameters, &expected)?;
        assert!(expected == all_gradients(&parameters, &found)?);
        assert!(expected == all_gradients(&parameters, &of_model)?);
        let of_no_size = Tensor::zeros(&device, &[STEPS, BATCH, 1])?;
        let refused = pass()?.backward_parameters(&of_no_size, &mut found);
        assert!(matches!(refused, Err(Error::Shape { .. })));
    }
    let mut model = Model::new(3);
    model.add("tokens", OneHot::new(7))?;
    model.add("rnn", Rnn::new(Cell::Gru, 7, 6))?;
    let (rows, w_ih, w_hh) = (9 * 4, 3 * 6 * 7, 3 * 6 * 6);
    let cost = model.cost(9, 4)?;
    assert_eq!((cost.forward, cost.backward), (rows * (w_ih + w_hh), rows * (w_ih + 2 * w_hh)));
    Ok(())
}

fn costs_count_the_entries_of_all_matrices() -> Outcome {
    let mut model = Model::new(1);
    model.add("embedding", Embedding::new(7, 5))?;
    model.add("rnn", Rnn::new(Cell::Gru, 5, 6).layers(2).bidirectional().merge(Merge::Sum))?;
    model.add("head", Linear::new(6, 7))?;
    let matrices = model.specs().iter().filter(|spec| spec.shape.rank() == 2);
    // An embedding is a table and no factor.
    let entries: usize = matrices.skip(1).map(|spec| spec.shape.elements()).sum();
    let cost = model.cost(9, 4)?;
    assert_eq!((cost.forward, cost.backward), (36 * entries as u64, 72 * entries as u64));
    let summary = model.summary();
    assert_eq!(summary.parameters(), model.initialize(&Device::cpu())?.count());
    assert_eq!(summary.rows()[1].features, 6);
    assert!(matches!(model.cost(0, 4), Err(Error::Shape { .. })));
    Ok(())
}

/// What no test machine could hold is counted: a dry run has no memory.
fn a_model_of_a_billion_parameters_is_counted_and_not_allocated() -> Outcome {
    let mut model = Model::new(1);
    model.add("rnn", Rnn::new(Cell::Lstm, 8000, 8000).layers(2))?;
    let parameters = model.summary().parameters() as u64;
    assert!(parameters > 1_000_000_000);
    let cost = model.cost(1024, 32)?;
    let saved = 2 * 6 * 1024 * 32 * 8000;
    assert!(cost.training_bytes > 4 * (4 * parameters + saved), "{cost:?}");
    // The gates would have more elements than a tensor.
    assert!(matches!(model.cost(1 << 20, 32), Err(Error::Shape { .. })));
    Ok(())
}

pub(super) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        gradients_of_data_are_not_computed,
        costs_count_the_entries_of_all_matrices,
        a_model_of_a_billion_parameters_is_counted_and_not_allocated,
    );
    on_gpu!(suite, a_trace_keeps_the_bytes_that_the_cost_says);
}
