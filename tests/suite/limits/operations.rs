//! Single operations under low limits: elementwise ones, products, rows, embeddings, reductions.

use refrain::loss::CrossEntropy;
use refrain::ops::{self, Activation, Binary, Form, Norm, Reduction};
use refrain::{IGNORED, Indices, View};

use super::{Order, TOO_WIDE, case, compare_all, downloads};
use crate::adapters::{Adapter, Outcome, Suite, on_gpu};
use crate::support::{random, tokens};

fn elementwise_operations_are_cut_without_a_trace(adapter: &Adapter) -> Outcome {
    const SIZES: [usize; 2] = [70, 50];
    compare_all(
        adapter,
        vec![
            case("unary", Order::Kept, |device| {
                let x = random(device, 1, &SIZES, 3.0)?;
                let y = ops::unary(&x, Activation::Tanh)?;
                let d_x = ops::unary_backward(&x, &y, &random(device, 2, &SIZES, 1.0)?, Activation::Tanh)?;
                downloads(&[&y, &d_x])
            }),
            case("binary", Order::Kept, |device| {
                let (a, b) = (random(device, 3, &SIZES, 3.0)?, random(device, 4, &SIZES, 3.0)?);
                downloads(&[&ops::binary(&a, &b, Binary::Axpy(0.5))?, &ops::scale(&a, 3.0)?])
            }),
            case("permute", Order::Kept, |device| {
                let x = random(device, 5, &[7, 50, 5, 2], 1.0)?;
                downloads(&[&ops::permute(&x, &[2, 0, 3, 1])?])
            }),
        ],
    )
}

fn matrix_products_are_cut_in_all_forms(adapter: &Adapter) -> Outcome {
    const M: usize = 70;
    const K: usize = 150;
    const N: usize = 140;
    let product = |form: Form| {
        case(format!("matmul {form:?}"), Order::Changed { terms: K }, move |device| {
            let (a, b): ([usize; 2], [usize; 2]) = match form {
                Form::Plain => ([M, K], [K, N]),
                Form::RightTransposed => ([M, K], [N, K]),
                Form::LeftTransposed => ([K, M], [K, N]),
                Form::BothTransposed => ([K, M], [N, K]),
            };
            let bias = random(device, 8, &[N], 1.0)?;
            let (a, b) = (random(device, 6, &a, 1.0)?, random(device, 7, &b, 1.0)?);
            downloads(&[&ops::matmul(&a, &b, form, Some(View::from(&bias)))?])
        })
    };
    compare_all(adapter, Form::ALL.map(product).into())
}

fn row_operations_are_cut_between_rows(adapter: &Adapter) -> Outcome {
    const SIZES: [usize; 3] = [10, 4, 60];
    let labels = || {
        let mut labels = tokens(9, 40, 60);
        labels[7] = IGNORED;
        labels
    };
    compare_all(
        adapter,
        vec![
            case("softmax", Order::Kept, |device| {
                let (x, d_y) = (random(device, 10, &SIZES, 4.0)?, random(device, 11, &SIZES, 1.0)?);
                let (y, z) = (ops::softmax(&x)?, ops::log_softmax(&x)?);
                let back = ops::softmax_backward(&y, &d_y)?;
                downloads(&[&y, &z, &back, &ops::log_softmax_backward(&z, &d_y)?])
            }),
            case("cross-entropy rows", Order::Kept, move |device| {
                let labels = Indices::from_slice(device, &[10, 4], &labels())?;
                let (x, d_rows) = (random(device, 12, &SIZES, 4.0)?, random(device, 13, &[10, 4], 1.0)?);
                let loss = CrossEntropy::default().weights(random(device, 14, &[60], 1.0)?).smoothing(0.1);
                downloads(&[&loss.rows(&x, &labels)?, &loss.rows_backward(&x, &labels, &d_rows)?])
            }),
            case("cross-entropy", Order::Kept, |device| {
                let x = random(device, 15, &SIZES, 4.0)?;
                let labels = Indices::from_slice(device, &[10, 4], &tokens(16, 40, 60))?;
                let (loss, d_x) = CrossEntropy::default().reduced(&x, &labels, Reduction::Mean)?;
                downloads(&[&loss, &d_x])
            }),
        ],
    )
}

fn embeddings_are_cut_by_place_and_by_token(adapter: &Adapter) -> Outcome {
    let both = |name: &str, vocabulary: usize, features: usize, count: usize| {
        case(name, Order::Changed { terms: count }, move |device| {
            let table = random(device, 17, &[vocabulary, features], 1.0)?;
            let places = Indices::from_slice(device, &[count], &tokens(18, count, vocabulary as u32))?;
            let d_y = random(device, 19, &[count, features], 1.0)?;
            let y = ops::embedding(&places, &table)?;
            downloads(&[&y, &ops::embedding_backward(&places, &d_y, vocabulary)?])
        })
    };
    compare_all(
        adapter,
        vec![
            both("wide table", 90, 40, 60),
            // More places than a binding has elements: the lists of places must be cut as well.
            both("one feature", 3000, 1, 2500),
            both("two features", 700, 2, 1500),
            case("one-hot", Order::Kept, |device| {
                let places = Indices::from_slice(device, &[9, 10], &tokens(20, 90, 37))?;
                downloads(&[&ops::one_hot(&places, 37)?])
            }),
        ],
    )
}

fn reductions_are_cut_into_partial_sums(adapter: &Adapter) -> Outcome {
    compare_all(
        adapter,
        vec![
            case("norms", Order::Changed { terms: 12_000 }, |device| {
                let x = random(device, 21, &[30, 400], 1.0)?;
                let norms = [ops::norm(&x, Norm::L2)?, ops::norm(&x, Norm::L1)?, ops::squared_norm(&x)?];
                downloads(&[&norms[0], &norms[1], &norms[2], &ops::sum(&x)?])
            }),
            case("largest magnitude", Order::Kept, |device| {
                downloads(&[&ops::norm(&random(device, 22, &[30, 400], 1.0)?, Norm::Infinity)?])
            }),
            case("rows", Order::Changed { terms: 600 }, |device| {
                downloads(&[&ops::sum_rows(&random(device, 23, &[600, 30], 1.0)?)?])
            }),
            // One row fills more than half a binding: no two fit at once.
            case("wide rows", Order::Changed { terms: 9 }, |device| {
                downloads(&[&ops::sum_rows(&random(device, 24, &[9, 600], 1.0)?)?])
            }),
            case("rows wider than a binding", Order::Changed { terms: 9 }, |device| {
                downloads(&[&ops::sum_rows(&random(device, 28, &[9, TOO_WIDE], 1.0)?)?])
            }),
        ],
    )
}

pub(super) fn register(suite: &mut Suite) {
    on_gpu!(
        suite,
        elementwise_operations_are_cut_without_a_trace,
        matrix_products_are_cut_in_all_forms,
        row_operations_are_cut_between_rows,
        embeddings_are_cut_by_place_and_by_token,
        reductions_are_cut_into_partial_sums,
    );
}
