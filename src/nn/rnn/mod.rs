//! Stacks of recurrent layers.

mod between;
mod checkpoints;
mod equations;
mod initial;
mod last;
mod norms;
mod options;
mod run;
mod sequences;
mod state;
mod trace;

use options::{Exclusive, Options};
pub use sequences::Sequences;
pub use state::State;
pub use trace::RnnTrace;

use serde::{Deserialize, Serialize};

use super::layer::expect_size;
use super::{Cell, CustomCell, Init, Layer, ParameterSpec, Parameters};
use crate::ops::Merge;
use crate::ops::recurrent::{self, Direction, RecurrentWeights};
use crate::shape::Shape;
use crate::tensor::View;
use crate::{Error, Result};

/// The directions of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Directions {
    Forward,
    Reverse,
    Both,
}

impl Directions {
    /// The option that selects it.
    fn option(self) -> Option<Exclusive> {
        match self {
            Self::Forward => None,
            Self::Reverse => Some(Exclusive::Reverse),
            Self::Both => Some(Exclusive::Bidirectional),
        }
    }

    fn all(self) -> &'static [Direction] {
        match self {
            Self::Forward => &[Direction::Forward],
            Self::Reverse => &[Direction::Reverse],
            Self::Both => &[Direction::Forward, Direction::Reverse],
        }
    }
}

/// A stack of L recurrent layers of H units over time, as PyTorch's `nn.RNN`, `nn.LSTM` and `nn.GRU`. Layer l
/// reads the outputs of layer l − 1; [`Cell`] defines the equations of a step.
///
/// Parameters of layer l, for a cell of G gates: `weight_ih_l{l}` \[G·H, I or D·H\], `weight_hh_l{l}` \[G·H,
/// H\], `bias_ih_l{l}` and `bias_hh_l{l}` \[G·H\], all initialized from U(±1/√H); those of the reverse
/// direction end in `_reverse`. D is 2 for a bidirectional stack whose directions are not merged, else 1.
///
/// [`Cost::training_bytes`](crate::nn::Cost::training_bytes) gives the memory of a training step.
///
/// Sequences are \[T, B, I\]: time first, so that a step is contiguous. Use [`permute`](crate::ops::permute)
/// for data in another layout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rnn {
    cell: Cell,
    inputs: usize,
    hidden: usize,
    layers: usize,
    bias: bool,
    directions: Directions,
    #[serde(flatten)]
    options: Options,
}

/// The most layers of a stack.
const MAX_LAYERS: usize = 1024;

impl Rnn {
    /// Creates a stack of one layer with `hidden` units and `inputs` input features.
    pub fn new(cell: Cell, inputs: usize, hidden: usize) -> Self {
        Self {
            cell,
            inputs,
            hidden,
            layers: 1,
            bias: true,
            directions: Directions::Forward,
            options: Options::default(),
        }
    }

    /// Sets the number of layers.
    pub fn layers(self, layers: usize) -> Self {
        Self { layers, ..self }
    }

    /// Omits b_ih and b_hh.
    pub fn without_bias(self) -> Self {
        Self { bias: false, ..self }
    }

    /// Runs both directions (Schuster & Paliwal 1997). The output of each layer is the forward output
    /// followed by the reverse output, or the two merged by [`Rnn::merge`].
    ///
    /// On a GPU one dispatch computes a step of both, so that a layer has as many dispatches as one
    /// direction. The directions run one after the other with layer normalisation, a projection, overlapping
    /// windows or random zoneout, and where the arrays of both exceed the largest buffer that a shader can read.
    pub fn bidirectional(self) -> Self {
        self.with_directions(Directions::Both)
    }

    /// Runs from the last step of each row to its first.
    pub fn reverse(self) -> Self {
        self.with_directions(Directions::Reverse)
    }

    fn with_directions(self, directions: Directions) -> Self {
        let options = self.options.instead_of(self.directions.option(), directions.option());
        Self { directions, options, ..self }
    }

    /// The cell.
    pub fn cell(&self) -> &Cell {
        &self.cell
    }

    /// Replaces a custom cell that was read from a file by the cell of `cells` with its name.
    pub(in crate::nn) fn resolve(&mut self, cells: &[CustomCell]) -> Result<()> {
        if let Cell::Custom(cell) = &mut self.cell {
            cell.resolve(cells)?;
            recurrent::validate(&self.cell)?;
        }
        Ok(())
    }

    /// The number of units H of each layer and direction.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Features of the output: P (or H without a projection) times the number of directions, unless they are
    /// merged.
    pub fn outputs(&self) -> usize {
        match self.options.merge {
            Merge::Concat => self.width(),
            Merge::Sum | Merge::Mean | Merge::Product => self.hidden_width(),
        }
    }

    /// Features of the outputs of all directions, concatenated.
    fn width(&self) -> usize {
        // The sizes are not validated yet.
        self.hidden_width().saturating_mul(self.directions.all().len())
    }

    /// Features of the hidden state of one layer in one direction.
    fn hidden_width(&self) -> usize {
        self.options.projection.unwrap_or(self.hidden)
    }

    /// Names and widths of the parts of a state, hidden first.
    fn state_widths(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let cell = self.cell.has_cell_state().then_some(("cell", self.hidden));
        [("hidden", self.hidden_width())].into_iter().chain(cell)
    }

    pub(in crate::nn) fn validate(&self, name: &str) -> Result<()> {
        recurrent::validate(&self.cell)?;
        expect_size(name, "inputs", self.inputs)?;
        expect_size(name, "hidden", self.hidden)?;
        // Layers are described before their parameters are counted, so they need a limit of their own.
        if !(1..=MAX_LAYERS).contains(&self.layers) {
            let message = format!("must be between 1 and {MAX_LAYERS}, not {}", self.layers);
            return Err(Error::config(format!("{name}: layers"), message));
        }
        self.validate_options(name)
    }

    /// The number of parameters of one layer in one direction, without its initial state.
    fn weights_per_direction(&self) -> usize {
        2 + 2 * usize::from(self.bias) + self.extra_weights().count() + self.norms().len()
    }

    /// The recurrent weights besides W_hh: name, rows, columns.
    fn extra_weights(&self) -> impl Iterator<Item = (&'static str, usize, usize)> {
        let peepholes = self.equations().peepholes();
        let peepholes = (peepholes > 0).then_some(("weight_ch", peepholes, self.hidden));
        let projection = self.options.projection.map(|width| ("weight_hr", width, self.hidden));
        peepholes.into_iter().chain(projection)
    }

    fn parameters_per_direction(&self) -> usize {
        let initial = if self.options.learned_initial_state { self.state_widths().count() } else { 0 };
        self.weights_per_direction() + initial
    }

    pub(in crate::nn) fn parameters(&self, name: &str) -> Result<Vec<ParameterSpec>> {
        let init = Init::inverse_root(self.hidden);
        let rows = self.equations().gates() * self.hidden;
        let mut specs = Vec::new();
        let mut add_from = |init: Init, parameter: String, dimensions: &[usize]| {
            let name = format!("{name}.{parameter}");
            specs.push(ParameterSpec { shape: Shape::named(&name, dimensions)?, name, init });
            Ok::<(), Error>(())
        };
        for layer in 0..self.layers {
            let inputs = if layer == 0 { self.inputs } else { self.outputs() };
            for direction in self.directions.all() {
                let suffix = match direction {
                    Direction::Forward => "",
                    Direction::Reverse => "_reverse",
                };
                let mut add = |parameter: String, dimensions: &[usize]| add_from(init, parameter, dimensions);
                add(format!("weight_ih_l{layer}{suffix}"), &[rows, inputs])?;
                add(format!("weight_hh_l{layer}{suffix}"), &[rows, self.hidden_width()])?;
                if self.bias {
                    add(format!("bias_ih_l{layer}{suffix}"), &[rows])?;
                    add(format!("bias_hh_l{layer}{suffix}"), &[rows])?;
                }
                for (weight, rows, columns) in self.extra_weights() {
                    add(format!("{weight}_l{layer}{suffix}"), &[rows, columns])?;
                }
                for (norm, dimensions, init) in self.norms() {
                    add_from(init, format!("{norm}_l{layer}{suffix}"), &dimensions)?;
                }
                if self.options.learned_initial_state {
                    for (part, width) in self.state_widths() {
                        add_from(Init::Zero, format!("initial_{part}_l{layer}{suffix}"), &[width])?;
                    }
                }
            }
        }
        Ok(specs)
    }
}

/// The parameters of one layer in one direction.
#[derive(Clone, Copy)]
struct LayerWeights<'a> {
    weight_ih: View<'a>,
    bias_ih: Option<View<'a>>,
    recurrent: RecurrentWeights<'a>,
}

impl Layer<Rnn> {
    /// The parameters at `place`, which is layer times directions, plus direction.
    fn weights<'p>(&self, parameters: &'p Parameters, place: usize) -> LayerWeights<'p> {
        let first = self.first_of(place);
        let bias = |offset| self.description.bias.then(|| parameters.section(first + offset));
        let [peepholes, projection] = self.extra_of(place);
        let norms = self.norms_at(parameters, place, bias(2));
        LayerWeights {
            weight_ih: parameters.section(first),
            // With layer normalisation, the bias is added after it.
            bias_ih: bias(2).filter(|_| norms.is_none()),
            recurrent: RecurrentWeights {
                weight_hh: parameters.section(first + 1),
                bias_hh: bias(3),
                peepholes: peepholes.map(|index| parameters.section(index)),
                projection: projection.map(|index| parameters.section(index)),
                norms,
            },
        }
    }

    /// The indices of peepholes and projection at `place`.
    fn extra_of(&self, place: usize) -> [Option<usize>; 2] {
        let first = self.first_of(place) + 2 + 2 * usize::from(self.description.bias);
        let peepholes = (self.description.equations().peepholes() > 0).then_some(first);
        let projection =
            self.description.options.projection.map(|_| first + usize::from(peepholes.is_some()));
        [peepholes, projection]
    }

    /// The index of the first parameter at `place`.
    fn first_of(&self, place: usize) -> usize {
        self.first + place * self.description.parameters_per_direction()
    }
}
