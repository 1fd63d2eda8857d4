//! Whole models: training on ragged batches, where a sequence begins and ends in them, required arguments,
//! and costs.
//!
//! This module has the batch and the model that its submodules use.

mod costs;
mod descriptions;
mod ends;
mod ragged;

use refrain::nn::{Cell, Embedding, Linear, Merge, Model, Rnn};
use refrain::{Device, Indices, Result};

use crate::adapters::Suite;

const STEPS: usize = 4;
const BATCH: usize = 3;
const LENGTHS: [u32; BATCH] = [2, 4, 1];

fn lengths(device: &Device) -> Result<Indices> {
    Indices::from_slice(device, &[BATCH], &LENGTHS)
}

/// A tagger with most options at once.
fn tagger() -> Result<Model> {
    let mut model = Model::new(11);
    model.add("embedding", Embedding::new(6, 3))?;
    let lower = Rnn::new(Cell::Lstm, 3, 3).layers(2).bidirectional().merge(Merge::Mean);
    model.add("lower", lower.dropout(0.3).residual().learned_initial_state())?;
    model.add("between", Linear::new(3, 4))?;
    model.add("upper", Rnn::new(Cell::Gru, 4, 3).input_dropout(0.3).weight_drop(0.3))?;
    model.add("head", Linear::new(3, 5))?;
    Ok(model)
}

pub(crate) fn register(suite: &mut Suite) {
    ragged::register(suite);
    ends::register(suite);
    descriptions::register(suite);
    costs::register(suite);
}
