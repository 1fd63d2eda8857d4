//! Dispatch of `shaders/embedding/{embedding,embedding_backward,one_hot}.wgsl`.

use std::ops::Range;

use crate::Result;
use crate::gpu::{Context, Dispatch, Operand, Span, kernels, parameters, pieces};
use crate::tensor::{Indices, View};

parameters!(EmbeddingParameters {
    count: u32,
    features: u32,
    /// The first row of the bound section of the table.
    first_token: u32,
    token_count: u32,
    /// The offset of the first element of this dispatch in the row of the first token.
    y_first: u32,
    tokens_base: u32,
    table_base: u32,
    y_base: u32,
});
parameters!(EmbeddingBackwardParameters {
    features: u32,
    first_group: u32,
    places_base: u32,
    groups_base: u32,
    d_y_base: u32,
    d_table_base: u32,
    /// The first position of the sequence in the bound section of d_y.
    first_place: u32,
    /// The first row of the bound section of the table.
    first_token: u32,
});
parameters!(OneHotParameters { count: u32, vocabulary: u32, y_first: u32, tokens_base: u32, y_base: u32 });

kernels! {
    EMBEDDING: "embedding/embedding" {
        uses: ["lib/elements"],
        parameters: EmbeddingParameters,
        bindings: [Read, Read, Write],
    }
    EMBEDDING_BACKWARD: "embedding/embedding_backward" {
        parameters: EmbeddingBackwardParameters,
        bindings: [Read, Read, Read, Write],
    }
    ONE_HOT: "embedding/one_hot" {
        uses: ["lib/elements"],
        parameters: OneHotParameters,
        bindings: [Read, Write],
    }
}

/// Workgroup size of `embedding/embedding_backward.wgsl`.
const SCATTER_GROUP: usize = 64;
/// The most loop iterations of one invocation of `embedding/embedding_backward.wgsl`; see `MAX_DEPTH` of `matmul`.
const MAX_ITERATIONS: usize = 1 << 14;

/// y_i = table_{token_i}. Leaves the rows of y whose token lies outside the table unchanged.
pub(crate) fn gather(context: &Context, tokens: Span<'_>, table: View<'_>, y: Span<'_>) -> Result<()> {
    let features = table.shape().last();
    let table_rows = (context.limits().binding_elements / features).max(1);
    for rows in pieces(table.shape().rows(), table_rows) {
        let bound = context.bind(table.span().slice(rows.start * features..rows.end * features))?;
        let operands = [Operand::Rows(tokens, features), Operand::All(bound), Operand::Each(y)];
        context.elementwise(
            &EMBEDDING,
            &[],
            y.len(),
            operands,
            |piece, [tokens_base, table_base, y_base]| EmbeddingParameters {
                count: piece.len() as u32,
                features: features as u32,
                first_token: rows.start as u32,
                token_count: rows.len() as u32,
                y_first: (piece.start % features) as u32,
                tokens_base,
                table_base,
                y_base,
            },
        )?;
    }
    Ok(())
}

/// Positions grouped by token. A group is a token, the index of its first position in `places`, and their number.
struct Places {
    places: Vec<u32>,
    /// Rounds of groups. Within a round each token occurs at most once, and groups are ordered by token.
    rounds: Vec<Vec<[u32; 3]>>,
}

/// Sorts the positions `range` of `tokens` by token with a stable sort, and splits them into groups of at most `longest`.
fn places(tokens: &[u32], range: Range<usize>, longest: usize) -> Places {
    let mut places: Vec<u32> = (range.start as u32..range.end as u32).collect();
    places.sort_by_key(|&place| tokens[place as usize]);
    let mut rounds: Vec<Vec<[u32; 3]>> = Vec::new();
    let mut first = 0;
    for run in places.chunk_by(|&one, &two| tokens[one as usize] == tokens[two as usize]) {
        for (round, part) in run.chunks(longest).enumerate() {
            if rounds.len() == round {
                rounds.push(Vec::new());
            }
            rounds[round].push([tokens[part[0] as usize], first, part.len() as u32]);
            first += part.len() as u32;
        }
    }
    Places { places, rounds }
}

pub(super) fn scatter(
    context: &Context,
    d_table: Span<'_>,
    vocabulary: usize,
    tokens: &Indices,
    d_y: View<'_>,
) -> Result<()> {
    let features = d_y.shape().last();
    let elements = context.limits().binding_elements;
    let rows_at_once = (elements / features).max(1);
    // The list of groups, with up to three numbers per position, must fit a binding too.
    let places_at_once = rows_at_once.min((elements / 3).max(1));
    let longest = (MAX_ITERATIONS / features.div_ceil(SCATTER_GROUP)).max(1);
    if context.is_dry() {
        // The lists depend on values that a dry run does not have: at most, each position is a group of its own.
        let lists = 4 * d_y.shape().rows();
        return context.allocate(lists, "the positions of tokens").map(drop);
    }
    for range in pieces(d_y.shape().rows(), places_at_once) {
        let sorted = places(tokens.values(), range.clone(), longest);
        let flat: Vec<u32> = sorted.rounds.iter().flatten().flatten().copied().collect();
        let uploaded = Indices::from_slice(d_y.device(), &[sorted.places.len()], &sorted.places)?;
        let groups = Indices::from_slice(d_y.device(), &[flat.len()], &flat)?;
        let places_bound = context.bind(uploaded.span())?;
        let groups_bound = context.bind(groups.span())?;
        let from = context.bind(d_y.span().slice(range.start * features..range.end * features))?;
        let mut before = 0;
        for round in &sorted.rounds {
            for table in pieces(vocabulary, rows_at_once) {
                let to = context.bind(d_table.slice(table.start * features..table.end * features))?;
                let starts = |token: usize| round.partition_point(|group| (group[0] as usize) < token);
                let (start, end) = (starts(table.start), starts(table.end));
                for part in pieces(end - start, context.limits().workgroups) {
                    context.dispatch(Dispatch {
                        kernel: &EMBEDDING_BACKWARD,
                        constants: &[],
                        parameters: EmbeddingBackwardParameters {
                            features: features as u32,
                            first_group: (before + start + part.start) as u32,
                            places_base: places_bound.base,
                            groups_base: groups_bound.base,
                            d_y_base: from.base,
                            d_table_base: to.base,
                            first_place: range.start as u32,
                            first_token: table.start as u32,
                        },
                        bindings: &[places_bound, groups_bound, from, to],
                        grid: [part.len(), 1, 1],
                    })?;
                }
            }
            before += round.len();
        }
    }
    Ok(())
}

pub(super) fn one_hot(context: &Context, tokens: Span<'_>, vocabulary: usize, y: Span<'_>) -> Result<()> {
    let operands = [Operand::Rows(tokens, vocabulary), Operand::Each(y)];
    context.elementwise(&ONE_HOT, &[], y.len(), operands, |piece, [tokens_base, y_base]| OneHotParameters {
        count: piece.len() as u32,
        vocabulary: vocabulary as u32,
        y_first: (piece.start % vocabulary) as u32,
        tokens_base,
        y_base,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_longer_than_allowed_go_to_later_rounds_in_order() {
        let sorted = places(&[7, 3, 7, 7, 3], 0..5, 2);
        assert_eq!(sorted.places, [1, 4, 0, 2, 3]);
        assert_eq!(sorted.rounds, [vec![[3, 0, 2], [7, 2, 2]], vec![[7, 4, 1]]]);
    }
}
