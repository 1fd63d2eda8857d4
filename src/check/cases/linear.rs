//! The linear layer, forward and backward; the gradients of two passes add up.

use super::{Case, Operation, Output, download};
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
    let all = SHAPES.into_iter().flat_map(|shape| [(shape, Bias::With), (shape, Bias::Without)]);
    let cases = all.zip(1000..).map(|(((leading, inputs, outputs), bias), seed)| {
        let label = format!("{leading:?} rows, {inputs} inputs, {outputs} outputs, {bias:?} bias");
        Case::new(label, seed, move |sampler| run(sampler, leading, [inputs, outputs], bias))
    });
    Operation::new("linear layer", cases.collect())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bias {
    With,
    Without,
}

fn run(
    sampler: &Sampler,
    leading: &[usize],
    [inputs, outputs]: [usize; 2],
    bias: Bias,
) -> Result<Vec<Output>> {
    let rows: usize = leading.iter().product();
    // Sums must not cancel where a tensor has few elements.
    let range = if inputs.min(outputs) == 1 || rows == 1 { POSITIVE } else { CENTRED };
    let description = Linear::new(inputs, outputs);
    let description = if bias == Bias::With { description } else { description.without_bias() };
    let mut model = Model::new(0);
    let layer = model.add("linear", description)?;
    let mut parameters = model.initialize(sampler.device())?;
    for spec in model.specs() {
        parameters.set(
            &spec.name,
            spec.shape.dimensions(),
            &sampler.values(spec.shape.elements(), range.clone()),
        )?;
    }
    let shape = |last| leading.iter().copied().chain([last]).collect::<Vec<usize>>();
    let mut gradients = parameters.zero_gradients()?;
    let mut results = Vec::new();
    for pass in ["first", "second"] {
        let (y, trace) = layer.forward(&parameters, &sampler.tensor(&shape(inputs), range.clone())?)?;
        let d_x = trace.backward(&sampler.tensor(&shape(outputs), range.clone())?, &mut gradients)?;
        results.push(Output::new(format!("y of the {pass} pass"), y, sum(inputs)));
        results.push(Output::new(format!("d_x of the {pass} pass"), d_x, sum(outputs)));
    }
    for spec in model.specs() {
        let gradient = download(sampler, gradients.view(&spec.name)?)?;
        results.push(Output::new(format!("gradient of {}", spec.name), gradient, sum(2 * rows)));
    }
    Ok(results)
}
