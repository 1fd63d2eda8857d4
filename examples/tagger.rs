//! Tags each token of sequences of different lengths with a bidirectional GRU: does the same token occur earlier, later,
//! both, or nowhere else? One direction alone cannot tell. `cargo run --release --example tagger [STEPS]`.

use refrain::nn::{Cell, Embedding, Layer, Linear, Model, Parameters, Rnn, Sequences};
use refrain::optim::{Adam, AdamConfig};
use refrain::random::Stream;
use refrain::{Device, IGNORED, Indices, Result, Tensor, loss};

const BATCH: usize = 64;
const LONGEST: usize = 12;
const VOCABULARY: usize = 8;
const TAGS: usize = 4;

/// Ragged sequences and a tag for each token; the tags of the padding are ignored by the loss.
struct Batch {
    tokens: Indices,
    lengths: Indices,
    tags: Indices,
}

/// Returns batch `number`, which is the same in every run.
fn batch(device: &Device, number: u64) -> Result<Batch> {
    let random = Stream::new(2, number);
    let lengths: Vec<u32> =
        (0..BATCH).map(|row| 3 + random.bits(row as u64) % (LONGEST as u32 - 2)).collect();
    // Time-major: the token of step t of row b is at t * BATCH + b.
    let tokens: Vec<u32> =
        (0..LONGEST * BATCH).map(|place| random.bits((BATCH + place) as u64) % VOCABULARY as u32).collect();
    let tag = |place: usize| {
        let (step, row) = (place / BATCH, place % BATCH);
        let length = lengths[row] as usize;
        let occurs = |mut steps: std::ops::Range<usize>| {
            u32::from(steps.any(|other| tokens[other * BATCH + row] == tokens[place]))
        };
        if step < length { occurs(0..step) + 2 * occurs(step + 1..length) } else { IGNORED }
    };
    let tags: Vec<u32> = (0..LONGEST * BATCH).map(tag).collect();
    Ok(Batch {
        tokens: Indices::from_slice(device, &[LONGEST, BATCH], &tokens)?,
        lengths: Indices::from_slice(device, &[BATCH], &lengths)?,
        tags: Indices::from_slice(device, &[LONGEST, BATCH], &tags)?,
    })
}

struct Tagger {
    embedding: Layer<Embedding>,
    rnn: Layer<Rnn>,
    head: Layer<Linear>,
}

impl Tagger {
    /// Logits of all tags [T, B, tags]; saves no activations.
    fn infer(&self, parameters: &Parameters, tokens: &Indices, lengths: &Indices) -> Result<Tensor> {
        let x = self.embedding.infer(parameters, tokens)?;
        let zero = self.rnn.zero_state(parameters.device(), BATCH)?;
        let (y, _) = self.rnn.infer_sequences(parameters, &x, &zero, Sequences::ragged(lengths))?;
        self.head.infer(parameters, &y)
    }

    /// The fraction of correct tags on batches that do not occur in training, and the fraction of the most frequent tag: the
    /// accuracy of guessing.
    fn accuracy(&self, parameters: &Parameters) -> Result<(f64, f64)> {
        let (mut right, mut of_tag) = (0, [0; TAGS]);
        for number in 0..8 {
            let Batch { tokens, lengths, tags } = batch(parameters.device(), 1_000_000 + number)?;
            let logits = self.infer(parameters, &tokens, &lengths)?.download()?;
            for (row, &tag) in logits.chunks(TAGS).zip(tags.values()).filter(|(_, tag)| **tag != IGNORED) {
                let likeliest = (0..TAGS).max_by(|&a, &b| row[a].total_cmp(&row[b]));
                right += usize::from(likeliest == Some(tag as usize));
                of_tag[tag as usize] += 1;
            }
        }
        let count = of_tag.iter().sum::<usize>() as f64;
        Ok((right as f64 / count, of_tag.into_iter().max().unwrap_or(0) as f64 / count))
    }
}

fn main() -> Result<()> {
    let steps = std::env::args().nth(1).map_or(Ok(300), |count| count.parse());
    let steps: u64 = steps.map_err(|error| refrain::Error::Config {
        what: "STEPS".to_owned(),
        message: format!("must be a number: {error}"),
    })?;
    let device = Device::auto()?;
    let mut model = Model::new(1);
    let tagger = Tagger {
        embedding: model.add("embedding", Embedding::new(VOCABULARY, 16))?,
        rnn: model.add("rnn", Rnn::new(Cell::Gru, 16, 32).bidirectional())?,
        head: model.add("head", Linear::new(2 * 32, TAGS))?, // forward and reverse features side by side
    };
    let mut parameters = model.initialize(&device)?;
    let mut adam = Adam::new(&parameters, AdamConfig::new(0.01))?;
    let (before, guessing) = tagger.accuracy(&parameters)?;
    println!("device {device}; always the most frequent tag {guessing:.3}; accuracy before {before:.3}");

    let zero = tagger.rnn.zero_state(&device, BATCH)?;
    for step in 1..=steps {
        let Batch { tokens, lengths, tags } = batch(&device, step)?;
        let (x, embedding_trace) = tagger.embedding.forward(&parameters, &tokens)?;
        let ragged = Sequences::ragged(&lengths);
        let (y, _, rnn_trace) = tagger.rnn.forward_sequences(&parameters, &x, &zero, ragged)?;
        let (logits, head_trace) = tagger.head.forward(&parameters, &y)?;
        let (loss, d_logits) = loss::cross_entropy(&logits, &tags)?;

        let mut gradients = parameters.zero_gradients()?;
        let d_y = head_trace.backward(&d_logits, &mut gradients)?;
        let (d_x, _) = rnn_trace.backward(&d_y, None, &mut gradients)?;
        embedding_trace.backward(&d_x, &mut gradients)?;
        gradients.clip_norm(1.0)?;
        adam.step(&mut parameters, &gradients)?;
        if step % 50 == 0 {
            println!("step {step:3}: loss {:.4}", loss.read()?);
        }
    }
    println!("accuracy after {:.3}", tagger.accuracy(&parameters)?.0);
    Ok(())
}
