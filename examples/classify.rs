//! Classifies sequences of different lengths by the last valid output of an LSTM: does a sequence contain more
//! openings than closings, as many, or fewer? `cargo run --release --example classify [STEPS]`.

use refrain::nn::{Cell, Embedding, Layer, Linear, Model, Parameters, Rnn, Sequences};
use refrain::optim::{Adam, AdamConfig};
use refrain::random::Stream;
use refrain::{Device, Indices, Result, loss};

const BATCH: usize = 64;
const LONGEST: usize = 20;
const HIDDEN: usize = 32;
const CLASSES: usize = 3;

/// Ragged sequences of the tokens 0 (opening), 1 (closing) and 2 (neither) with their classes.
struct Batch {
    tokens: Indices,
    lengths: Indices,
    labels: Indices,
}

/// Returns batch `number`, which is the same in every run.
fn batch(device: &Device, number: u64) -> Result<Batch> {
    let random = Stream::new(1, number);
    let lengths: Vec<u32> =
        (0..BATCH).map(|row| 4 + random.bits(row as u64) % (LONGEST as u32 - 3)).collect();
    // Time-major: the token of step t of row b is at t * BATCH + b. Padding has tokens too; they are not read.
    let tokens: Vec<u32> =
        (0..LONGEST * BATCH).map(|place| random.bits((BATCH + place) as u64) % 3).collect();
    let label = |row: usize| {
        let valid = tokens.iter().skip(row).step_by(BATCH).take(lengths[row] as usize);
        let balance: i32 = valid.map(|&token| [1, -1, 0][token as usize]).sum();
        (balance.signum() + 1) as u32
    };
    let labels: Vec<u32> = (0..BATCH).map(label).collect();
    Ok(Batch {
        tokens: Indices::from_slice(device, &[LONGEST, BATCH], &tokens)?,
        lengths: Indices::from_slice(device, &[BATCH], &lengths)?,
        labels: Indices::from_slice(device, &[BATCH], &labels)?,
    })
}

struct Classifier {
    embedding: Layer<Embedding>,
    rnn: Layer<Rnn>,
    head: Layer<Linear>,
}

impl Classifier {
    /// The fraction of correct classifications on batches that do not occur in training, and the fraction of the most
    /// frequent class: the accuracy of guessing.
    fn accuracy(&self, parameters: &Parameters) -> Result<(f64, f64)> {
        let device = parameters.device();
        let (mut right, mut of_class) = (0, [0; CLASSES]);
        for number in 0..8 {
            let Batch { tokens, lengths, labels } = batch(device, 1_000_000 + number)?;
            let x = self.embedding.infer(parameters, &tokens)?;
            let zero = self.rnn.zero_state(device, BATCH)?;
            let (y, _) = self.rnn.infer_sequences(parameters, &x, &zero, Sequences::ragged(&lengths))?;
            let last = self.rnn.last_valid(&y, &lengths)?;
            let logits = self.head.infer(parameters, &last)?.download()?;
            for (row, &label) in logits.chunks(CLASSES).zip(labels.values()) {
                let likeliest = (0..CLASSES).max_by(|&a, &b| row[a].total_cmp(&row[b]));
                right += usize::from(likeliest == Some(label as usize));
                of_class[label as usize] += 1;
            }
        }
        let count = of_class.iter().sum::<usize>() as f64;
        Ok((right as f64 / count, of_class.into_iter().max().unwrap_or(0) as f64 / count))
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
    let classifier = Classifier {
        embedding: model.add("embedding", Embedding::new(3, 8))?,
        rnn: model.add("rnn", Rnn::new(Cell::Lstm, 8, HIDDEN))?,
        head: model.add("head", Linear::new(HIDDEN, CLASSES))?,
    };
    let mut parameters = model.initialize(&device)?;
    let mut adam = Adam::new(&parameters, AdamConfig::new(0.01))?;
    let (before, guessing) = classifier.accuracy(&parameters)?;
    println!("device {device}; always the most frequent class {guessing:.3}; accuracy before {before:.3}");
    let Classifier { embedding, rnn, head } = &classifier;

    let zero = rnn.zero_state(&device, BATCH)?;
    for step in 1..=steps {
        let Batch { tokens, lengths, labels } = batch(&device, step)?;
        let (x, embedding_trace) = embedding.forward(&parameters, &tokens)?;
        let (y, _, rnn_trace) = rnn.forward_sequences(&parameters, &x, &zero, Sequences::ragged(&lengths))?;
        let last = rnn.last_valid(&y, &lengths)?; // [B, hidden]
        let (logits, head_trace) = head.forward(&parameters, &last)?;
        let (loss, d_logits) = loss::cross_entropy(&logits, &labels)?;

        let mut gradients = parameters.zero_gradients()?;
        let d_last = head_trace.backward(&d_logits, &mut gradients)?;
        let d_y = rnn.last_valid_backward(&d_last, &lengths, LONGEST)?;
        let (d_x, _) = rnn_trace.backward(&d_y, None, &mut gradients)?;
        embedding_trace.backward(&d_x, &mut gradients)?;
        gradients.clip_norm(1.0)?;
        adam.step(&mut parameters, &gradients)?;
        if step % 50 == 0 {
            println!("step {step:3}: loss {:.4}", loss.read()?);
        }
    }
    println!("accuracy after {:.3}", classifier.accuracy(&parameters)?.0);
    Ok(())
}
