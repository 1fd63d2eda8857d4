//! No memory left: every operation on the CPU is an error then, and the program goes on.

use refrain::loss::{CrossEntropy, cross_entropy};
use refrain::nn::{Cell, Embedding, Linear, Merge, Model, Rnn, Sequences};
use refrain::ops::{self, Activation, Binary, Form, Mask, Norm};
use refrain::optim::{Adam, AdamConfig, Sgd, SgdConfig};
use refrain::random::Stream;
use refrain::{Device, Error, Indices, Result, Tensor};

use crate::adapters::{Outcome, Suite};
use crate::child::{self, Claim, Limit};

/// Rows and columns of the operands: 4 MiB in 32-bit floats.
const ROWS: usize = 1 << 12;
const COLUMNS: usize = 1 << 8;
/// T, B, I and H of recurrent layers.
const SHAPE: [usize; 4] = [32, 64, 64, 64];
/// KiB of address space that the process may have.
const LIMIT: u64 = 2 << 20;
/// Bytes of room, the least and the most, and from one to the next: operations begin to succeed in between.
const LEAST: usize = 2 << 20;
const STEP: usize = 2 << 20;
const MOST: usize = 64 << 20;
type Operation<'a> = (String, Box<dyn Fn() -> Result<()> + 'a>);

/// Memory of `bytes` that is reserved and not touched.
fn reserve(bytes: usize) -> Option<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(bytes).ok()?;
    std::hint::black_box(room.as_ptr());
    Some(room)
}

/// All memory but one block of `room` bytes, and pieces too small for a tensor: both what the system would still map and what
/// the allocator has free.
fn ballast(room: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::with_capacity(1 << 14);
    let free = reserve(room);
    let mut size = 1usize << 30;
    while size >= 1 << 17 {
        match reserve(size) {
            Some(part) if all.len() < all.capacity() => all.push(part),
            _ => size /= 2,
        }
    }
    drop(free);
    all
}

fn done<T>(result: Result<T>) -> Result<()> {
    result.map(drop)
}

fn operations(device: &Device) -> Result<Vec<Operation<'_>>> {
    let zeros = |dimensions: &[usize]| Tensor::zeros(device, dimensions);
    let (x, y) = (zeros(&[ROWS, COLUMNS])?, zeros(&[ROWS, COLUMNS])?);
    let (square, row) = (zeros(&[COLUMNS, COLUMNS])?, zeros(&[COLUMNS])?);
    let sequence = zeros(&[16, ROWS / 16, COLUMNS])?;
    let lengths = Indices::from_slice(device, &[ROWS / 16], &[3; ROWS / 16])?;
    let tokens = Indices::from_slice(device, &[ROWS], &[3; ROWS])?;
    let host = vec![0.0; ROWS * COLUMNS];
    let mut all: Vec<Operation<'_>> = Vec::new();
    macro_rules! add {
        ($name:expr, || $operation:expr) => {
            all.push(($name.to_string(), Box::new(move || done($operation))))
        };
        ($name:expr, |$($clone:ident),*| $operation:expr) => {{
            $(let $clone = $clone.clone();)*
            all.push(($name.to_string(), Box::new(move || done($operation))));
        }};
    }
    add!("from_slice", |host| Tensor::from_slice(device, &[ROWS, COLUMNS], &host));
    add!("zeros", || Tensor::zeros(device, &[ROWS, COLUMNS]));
    add!("download", |x| x.download());
    add!("download_f64", |x| x.download_f64());
    add!("to_device", |x| x.to_device(&Device::reference()));
    add!("indices", || Indices::from_slice(device, &[8], &[1; 8]));
    for function in [Activation::Tanh, Activation::Relu] {
        add!(format!("unary {function:?}"), |x| ops::unary(&x, function));
        add!(format!("unary_backward {function:?}"), |x, y| ops::unary_backward(&x, &y, &y, function));
    }
    for function in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Axpy(2.0)] {
        add!(format!("binary {function:?}"), |x, y| ops::binary(&x, &y, function));
    }
    add!("scale", |x| ops::scale(&x, 2.0));
    add!("softmax", |x| ops::softmax(&x));
    add!("softmax_backward", |x, y| ops::softmax_backward(&x, &y));
    add!("log_softmax", |x| ops::log_softmax(&x));
    add!("log_softmax_backward", |x, y| ops::log_softmax_backward(&x, &y));
    for form in [Form::Plain, Form::RightTransposed] {
        add!(format!("matmul {form:?}"), |x, square| ops::matmul(&x, &square, form, None));
    }
    add!("matmul LeftTransposed", |x, y| ops::matmul(&x, &y, Form::LeftTransposed, None));
    add!("a product larger than its operands", |x| {
        let tall = x.reshape(&[2048, ROWS * COLUMNS / 2048])?;
        ops::matmul(&tall, &tall, Form::RightTransposed, None)
    });
    add!("permute", |sequence| ops::permute(&sequence, &[1, 0, 2]));
    add!("embedding", |tokens, square| ops::embedding(&tokens, &square));
    add!("embedding_backward", |tokens, x| ops::embedding_backward(&tokens, &x, ROWS));
    add!("one_hot", |tokens| ops::one_hot(&tokens, COLUMNS));
    add!("zero_padding", |sequence, lengths| ops::zero_padding(&sequence, &lengths));
    for mode in [Merge::Sum, Merge::Mean, Merge::Product, Merge::Concat] {
        add!(format!("merge {mode:?}"), |x| ops::merge(&x, mode));
        add!(format!("merge_backward {mode:?}"), |x| {
            let d_y = ops::merge(&x, mode)?;
            ops::merge_backward(&x, &d_y, mode)
        });
    }
    add!("layer_norm", |x, row| ops::layer_norm(&x, &row, None, &[COLUMNS]));
    add!("layer_norm_backward", |x, y, row| ops::layer_norm_backward(&x, &row, &y, &[COLUMNS]));
    add!("sum", |x| ops::sum(&x));
    add!("sum_rows", |x| ops::sum_rows(&x));
    add!("squared_norm", |x| ops::squared_norm(&x));
    add!("norm", |x| ops::norm(&x, Norm::L1));
    add!("dropout", |x| ops::dropout(&x, Mask::new(Stream::new(1, 0), 0.5)?));
    add!("cross_entropy", |x, tokens| cross_entropy(&x, &tokens));
    add!("cross_entropy by rows", |x, tokens| CrossEntropy::default().smoothing(0.1).rows(&x, &tokens));
    layers(device, &mut all)?;
    Ok(all)
}

/// Training steps of recurrent layers, and what models and optimizers allocate.
fn layers<'a>(device: &'a Device, all: &mut Vec<Operation<'a>>) -> Result<()> {
    let [steps, batch, inputs, hidden] = SHAPE;
    let x = Tensor::zeros(device, &[steps, batch, inputs])?;
    let plain = |cell| Rnn::new(cell, inputs, hidden);
    let stacks = [
        ("tanh", plain(Cell::tanh())),
        ("lstm", plain(Cell::Lstm)),
        ("gru", plain(Cell::Gru)),
        ("gru, reset before", plain(Cell::Gru).reset_before()),
        ("peepholes and projection", plain(Cell::Lstm).peepholes().projection(hidden / 2)),
        ("layer norm", plain(Cell::Lstm).layer_norm()),
        ("layer norm of a gru", plain(Cell::Gru).layer_norm()),
        ("windows", plain(Cell::Lstm).windowed(3)),
        ("checkpoints", plain(Cell::Lstm).checkpointed(4)),
        ("two directions", plain(Cell::Gru).bidirectional().layers(2).merge(Merge::Sum)),
        ("masks", plain(Cell::Lstm).recurrent_dropout(0.5).input_dropout(0.5).weight_drop(0.5)),
        ("zoneout", plain(Cell::Lstm).zoneout(0.5, 0.5)),
    ];
    for (name, stack) in stacks {
        let mut model = Model::new(1);
        let layer = model.add("rnn", stack)?;
        let parameters = model.initialize(device)?;
        let x = x.clone();
        all.push((
            format!("a training step of {name}"),
            Box::new(move || {
                let state = layer.zero_state(device, batch)?;
                let random_key = refrain::nn::RandomKey::new(1, 0);
                let sequences = Sequences::whole().training(random_key);
                let (y, next, trace) = layer.forward_sequences(&parameters, &x, &state, sequences)?;
                let mut gradients = parameters.zero_gradients()?;
                done(trace.backward(&y, Some(&next), &mut gradients))
            }),
        ));
    }
    let mut model = Model::new(1);
    model.add("embedding", Embedding::new(ROWS, COLUMNS))?;
    model.add("head", Linear::new(COLUMNS, ROWS))?;
    let parameters = model.initialize(device)?;
    all.push((
        "a model".to_owned(),
        Box::new(move || {
            let mut result = model.initialize(device)?;
            let gradients = result.zero_gradients()?;
            gradients.norm(Norm::L2)?;
            result.set("head.bias", &[ROWS], &[1.0; ROWS])?;
            let momentum = SgdConfig { momentum: 0.5, ..SgdConfig::new(0.1) };
            Sgd::new(&result, momentum)?.step(&mut result, &gradients)?;
            Adam::new(&parameters, AdamConfig { amsgrad: true, ..AdamConfig::new(0.1) }).map(drop)
        }),
    ));
    Ok(())
}

fn every_operation_without_room() -> Outcome {
    let device = Device::cpu();
    let all = operations(&device)?;
    // Once with room: all of them are right, and what the process needs only once is there.
    for (name, operation) in &all {
        operation().map_err(|error| format!("{name} with room: {error}"))?;
    }
    // How often each was refused, and how often it had room: after twice it always has.
    let mut counts = vec![[0, 0]; all.len()];
    for room in (LEAST..=MOST).step_by(STEP) {
        device.release_unused()?;
        let held = ballast(room);
        for ((name, operation), [refused, done]) in
            all.iter().zip(&mut counts).filter(|(_, [_, done])| *done < 2)
        {
            // Seen if the program is ended here.
            eprintln!("{name} with room for {room} bytes");
            match operation() {
                Ok(()) => *done += 1,
                Err(Error::OutOfMemory { .. }) => *refused += 1,
                Err(other) => return Err(format!("{name} with room for {room} bytes: {other}").into()),
            }
            device.release_unused()?;
        }
        drop(held);
    }
    // All are done in the end; most take more than the least room.
    for ((name, _), [_, done]) in all.iter().zip(&counts) {
        if *done == 0 {
            return Err(format!("{name} never had room").into());
        }
    }
    let refused = counts.iter().filter(|[refused, _]| *refused > 0).count();
    if refused < all.len() / 2 {
        return Err(format!("only {refused} of {} operations were refused", all.len()).into());
    }
    Ok(())
}

pub(crate) const CLAIMS: &[Claim] = &[("every operation without room", every_operation_without_room)];

fn every_operation_on_the_cpu_is_an_error_where_there_is_no_memory() -> Outcome {
    child::run("every operation without room", Limit::AddressSpace(LIMIT))
}

pub(crate) fn register(suite: &mut Suite) {
    suite.cpu_if(
        concat!(module_path!(), "::every_operation_on_the_cpu_is_an_error_where_there_is_no_memory"),
        cfg!(target_os = "linux"),
        every_operation_on_the_cpu_is_an_error_where_there_is_no_memory,
    );
}
