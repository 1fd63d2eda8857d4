// y[i, :] = table[tokens[i], :] for the tokens whose rows lie in the bound section of the table; other dispatches write
// the rest.
//   tokens [T]; table [vocabulary, features]; y [T, features]. One invocation per element of y.
//   CPU reference: src/ops/embedding/cpu.rs.

@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> table: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn compute(i: u32) {
    let place = parameters.y_first + i;
    let token = tokens[parameters.tokens_base + place / parameters.features];
    if token < parameters.first_token || token - parameters.first_token >= parameters.token_count {
        return;
    }
    let row = (token - parameters.first_token) * parameters.features;
    y[parameters.y_base + i] = table[parameters.table_base + row + place % parameters.features];
}
