//! Layers and models. A layer is a description (sizes and options); its values are in [`Parameters`], one
//! flat buffer for the whole model.
//!
//! [`Model::add`] turns a description into a [`Layer`], whose `forward` returns outputs and a trace;
//! `backward` consumes the trace and adds to [`Gradients`]. A trace borrows the parameters, so they cannot
//! change between the two. `infer` computes the same outputs and saves nothing.
//!
//! Layers can be called one by one, or together: [`Model::forward`] runs them in the order in which they were
//! added and returns one trace.
//!
//! There is no hidden training mode. For a stack with dropout, [`Sequences`] states whether a pass is
//! training, with the random numbers of a [`RandomKey`], or evaluation; `infer` defaults to evaluation.

mod cost;
mod embedding;
mod gradients;
mod init;
mod layer;
mod linear;
mod model;
mod one_hot;
mod parameters;
mod random_key;
mod rnn;
mod run;
mod summary;

pub use crate::ops::Merge;
pub use crate::ops::recurrent::{
    Cell, CustomCell, UnitBackward, UnitEquations, UnitForward, UnitState, UnitStep,
};
pub use cost::Cost;
pub use embedding::{Embedding, EmbeddingTrace};
pub use gradients::Gradients;
pub use init::Init;
pub use layer::Layer;
pub use linear::{Linear, LinearTrace};
pub use model::{LayerConfig, Model, ModelConfig};
pub use one_hot::OneHot;
pub(crate) use parameters::Layout;
pub use parameters::{ParameterSpec, Parameters};
pub use random_key::RandomKey;
pub use rnn::{Rnn, RnnTrace, Sequences, State};
pub use run::{Input, ModelState, ModelTrace};
pub use summary::{Summary, SummaryRow};
