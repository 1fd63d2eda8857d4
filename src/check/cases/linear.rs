//! The linear layer, forward and backward; the gradients of two passes add up.

use super::{Operation, Output, gradient_outputs};
use crate::Result;
use crate::check::sampler::{CENTRED, POSITIVE, Sampler};
use crate::check::tolerance::sum;
use crate::nn::{Linear, Model};

/// Leading sizes, inputs, outputs.
const SHAPES: [(&[usize], usize, usize); 9] = [
    (&[1], 1, 1),
    (&[1], 33, 17),
    (&[5], 1, 31),
    (&[7, 3], 16, 1),
    (&[15], 17, 16),
    (&[31, 2], 65, 33),
    (&[64], 64, 63),
    (&[65], 32, 64),
    (&[5000], 9, 7),
];

pub(super) fn operation() -> Operation {
    let all = SHAPES.into_iter().flat_map(|shape| [(shape, LinearBias::With), (shape, LinearBias::Without)]);
    let label = |&((leading, inputs, outputs), bias): &((&[usize], usize, usize), LinearBias)| {
        format!("{leading:?} rows, {inputs} inputs, {outputs} outputs, {bias:?} bias")
    };
    Operation::over("linear layer", 1000, all, label, |sampler, &((leading, inputs, outputs), bias)| {
        run(sampler, leading, [inputs, outputs], bias)
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum LinearBias {
    With,
    Without,
}

fn run(
    sampler: &Sampler,
    leading: &[usize],
    [inputs, outputs]: [usize; 2],
    bias: LinearBias,
) -> Result<Vec<Output>> {
    let rows: usize = leading.iter().product();
    // Sums must not cancel where a tensor has few elements.
    let range = if inputs.min(outputs) == 1 || rows == 1 { POSITIVE } else { CENTRED };
    let description = Linear::new(inputs, outputs);
    let description = if bias == LinearBias::With { description } else { description.without_bias() };
    let mut model = Model::new(0);
    let layer = model.add("linear", description)?;
    let parameters = sampler.parameters(&model, |_| range.clone())?;
    let shape = |last| leading.iter().copied().chain([last]).collect::<Vec<usize>>();
    let mut gradients = parameters.zero_gradients()?;
    let mut results = Vec::new();
    for pass in ["first", "second"] {
        let (y, trace) = layer.forward(&parameters, &sampler.tensor(&shape(inputs), range.clone())?)?;
        let d_x = trace.backward(&sampler.tensor(&shape(outputs), range.clone())?, &mut gradients)?;
        results.push(Output::new(format!("y of the {pass} pass"), y, sum(inputs)));
        results.push(Output::new(format!("d_x of the {pass} pass"), d_x, sum(outputs)));
    }
    results.extend(gradient_outputs(&model, &gradients, sum(2 * rows))?);
    Ok(results)
}
