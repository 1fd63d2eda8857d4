//! Files: weights and whole models in safetensors, with PyTorch's parameter names.

mod checkpoint;
mod file;
mod weights;

pub use checkpoint::{Checkpoint, Metadata};
pub use file::write_atomically;
pub use weights::{load_weights, save_weights};
