//! Embedding: vocabularies of one and of a thousand tokens, and a long text that consists mostly of one token.

use super::{Operation, Output, gradient_outputs};
use crate::Result;
use crate::check::sampler::{CENTRED, LEANING, Sampler};
use crate::check::tolerance::sum;
use crate::nn::{self, Model};
use crate::ops::{embedding, embedding_backward, one_hot};
use crate::tensor::Indices;

/// Vocabulary, features, tokens.
const SHAPES: [(usize, usize, &[usize]); 6] = [
    (1, 1, &[1]),
    (1, 5, &[7]),
    (1000, 17, &[9, 4]),
    (5, 33, &[31, 2]),
    (64, 65, &[17, 15]),
    (3, 4, &[20_000]),
];

pub(super) fn operations() -> Vec<Operation> {
    let label = |TableShape { vocabulary, features, tokens }: &TableShape| {
        format!("vocabulary {vocabulary}, {features} features, tokens {tokens:?}")
    };
    let operation = |name, run: fn(&Sampler, &TableShape) -> Result<Vec<Output>>| {
        let shapes = SHAPES.map(|(vocabulary, features, tokens)| TableShape { vocabulary, features, tokens });
        Operation::over(name, 800, shapes, label, run)
    };
    vec![
        operation("embedding", of_table),
        operation("one_hot", |sampler, shape| {
            Ok(vec![Output::new("y", one_hot(&shape.tokens(sampler)?, shape.vocabulary)?, 1.0)])
        }),
        operation("embedding layer", of_layer),
    ]
}

#[derive(Clone, Copy)]
struct TableShape {
    vocabulary: usize,
    features: usize,
    tokens: &'static [usize],
}

impl TableShape {
    /// Random tokens; if there are very many, nine of ten are token 1.
    fn tokens(self, sampler: &Sampler) -> Result<Indices> {
        let count: usize = self.tokens.iter().product();
        let mut tokens = sampler.integers(count, self.vocabulary);
        if count > 10_000 {
            let chance = sampler.values(count, 0.0..1.0);
            tokens
                .iter_mut()
                .zip(chance)
                .filter(|(_, chance)| *chance < 0.9)
                .for_each(|(token, _)| *token = 1);
        }
        Indices::from_slice(sampler.device(), self.tokens, &tokens)
    }

    /// The shape of the output.
    fn output(self) -> Vec<usize> {
        self.tokens.iter().copied().chain([self.features]).collect()
    }

    /// The number of terms of the longest sum in the gradient.
    fn depth(self) -> usize {
        self.tokens.iter().product()
    }
}

fn of_table(sampler: &Sampler, shape: &TableShape) -> Result<Vec<Output>> {
    let tokens = shape.tokens(sampler)?;
    let table = sampler.tensor(&[shape.vocabulary, shape.features], CENTRED)?;
    let d_y = sampler.tensor(&shape.output(), LEANING)?;
    Ok(vec![
        Output::new("y", embedding(&tokens, &table)?, 1.0),
        Output::new("d_table", embedding_backward(&tokens, &d_y, shape.vocabulary)?, sum(shape.depth())),
    ])
}

/// Two backward passes into the same gradients, which add up.
fn of_layer(sampler: &Sampler, shape: &TableShape) -> Result<Vec<Output>> {
    let mut model = Model::new(0);
    let layer = model.add("embedding", nn::Embedding::new(shape.vocabulary, shape.features))?;
    let parameters = sampler.parameters(&model, |_| CENTRED)?;
    let mut gradients = parameters.zero_gradients()?;
    let mut outputs = Vec::new();
    for pass in ["first", "second"] {
        let (y, trace) = layer.forward(&parameters, &shape.tokens(sampler)?)?;
        trace.backward(&sampler.tensor(&shape.output(), LEANING)?, &mut gradients)?;
        outputs.push(Output::new(format!("y of the {pass} pass"), y, 1.0));
    }
    outputs.extend(gradient_outputs(&model, &gradients, sum(2 * shape.depth()))?);
    Ok(outputs)
}
