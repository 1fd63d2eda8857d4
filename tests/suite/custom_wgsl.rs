//! What the WGSL of a custom cell may be: whatever could run without an end, need a stack without an end, or touch what is
//! not the cell's is refused by the cell's name before a driver sees it, and what equations need is not.

use std::time::Duration;

use refrain::check::custom_cell;
use refrain::nn::{Cell, CustomCell, Model, Rnn};
use refrain::{GpuOptions, Result, Tensor};

use crate::adapters::{Adapter, Outcome, Suite, on_cpu, on_gpu};
use crate::custom::OfSum;
use crate::misuse::refuses;

/// tanh of two gates' sums, by the text under test.
fn cell(name: &str, wgsl: String) -> CustomCell {
    CustomCell::new(OfSum::tanh(name, wgsl, 2))
}

/// The cell whose forward function, from its third line on, has `body` before it returns tanh(sum), with `outside` behind
/// the two functions.
fn text(body: &str, outside: &str) -> String {
    format!(
        "fn cell_forward(p: array<f32, GATES>, q: array<f32, GATES>, previous: CellState) -> Forward {{
    var sum = p[0] + q[0] + p[1] + q[1];
    {body}
    return Forward(array<f32, GATES>(), 0.0, accurate_tanh(sum));
}}
fn cell_backward(step: Step, d_hidden: f32, d_cell: f32) -> Backward {{
    let d = d_hidden * (1.0 - step.hidden) * (1.0 + step.hidden);
    return Backward(array<f32, GATES>(d, d), 0.0, 0.0, 0.0);
}}
{outside}
"
    )
}

fn add(cell: CustomCell) -> Result<()> {
    Model::new(1).add("rnn", Rnn::new(Cell::Custom(cell), 2, 3)).map(|_| ())
}

/// Fails unless the text is refused by an error that names the cell and has this part.
fn expect_refused(name: &str, wgsl: String, part: &str) {
    refuses!(Shader, add(cell(name, wgsl)), &format!("the cell `{name}`"), part);
}

fn every_part_of(parts: &[(&str, &str, &str)], of: impl Fn(&str) -> String) {
    for (name, source, part) in parts {
        expect_refused(name, of(source), part);
    }
}

fn loops_without_a_constant_end_are_refused_by_the_name_of_the_cell() -> Outcome {
    let endless = "line 1: the function `cell_forward` has a loop that is not a `for` over a constant number";
    every_part_of(
        &[
            ("endless_loop", "loop { sum += 1.0; if sum > 1e30 { break; } }", endless),
            ("endless_while", "while true { sum += 1.0; }", endless),
            ("endless_for", "for (;;) { sum += 1.0; if sum > 1e30 { break; } }", endless),
            ("by_data", "for (var i = 0; i < i32(sum); i++) { sum += 1.0; }", endless),
            ("from_data", "for (var i = i32(sum); i < 8; i++) { sum += 1.0; }", endless),
            ("written_inside", "for (var i = 0; i < 8; i++) { i = 0; }", endless),
            ("written_after_a_start", "var i = 7; i = 0; for (; i < 8; i++) { i = 0; }", endless),
            ("by_a_pointer", "for (var i = 0; i < 8; i++) { let at = &i; *at = 0; }", endless),
            ("by_a_call", "for (var i = 0; i < 8; i++) { back(&i); }", endless),
            ("standing", "for (var i = 0; i < 8; i += 0) { sum += 1.0; }", endless),
            ("backwards", "for (var i = 0; i < 8; i--) { sum += 1.0; }", endless),
            ("around_zero", "for (var i = 8u; i >= 0u; i--) { sum += 1.0; }", endless),
            (
                "other_start",
                "var i = 7; i = -2000000000; sum += 1.0; for (; i < 8; i++) { sum += 1.0; }",
                endless,
            ),
            ("old_value", "var i = 0; let k = i; for (; k < 8; i++) { sum += 1.0; }", endless),
            ("old_step", "var i = 0; let k = i; for (; i < 8; i = k + 1) { sum += 1.0; }", endless),
            ("other_step", "var j = 0; for (var i = 0; i < 8; i = j + 1) { sum += 1.0; }", endless),
            (
                "to_and_fro",
                "var i = 7; i = 0; loop { if i < 8 { } else { break; } sum += 1.0; continuing { i++; i--; } }",
                endless,
            ),
            (
                "sometimes",
                "var i = 0; loop { if i < 8 { } else { break; } sum += 1.0; \
                 continuing { let next = i + 1; if sum > 1e30 { i = next; } } }",
                endless,
            ),
            ("old_truth", "var i = 0; let t = i < 8; for (; t; i++) { sum += 1.0; }", endless),
            ("long", "for (var i = 0; i < 1000000000; i++) { sum += 1.0; }", endless),
            (
                "broken_by_if",
                "loop { sum += 1.0; continuing { break if sum > 1e30; } }",
                "has a `loop`: write a `for`",
            ),
            (
                "nested",
                "for (var i = 0; i < 5; i++) { for (var j = 0; j < 5; j++) { sum += 1.0; } }",
                "takes 30 iterations of its loops in a call, and may take at most 24",
            ),
        ],
        |body| text(body, "fn back(at: ptr<function, i32>) { *at = 0; }"),
    );
    let unused = text("", "fn unused() { loop { } }");
    expect_refused("unused", unused, "line 10: the function `unused` has a loop");
    let twice = "fn once() { for (var i = 0; i < 20; i++) { } } fn twice() { once(); once(); }";
    expect_refused("called_twice", text("", twice), "`twice` takes 40 iterations");
    Ok(())
}

/// g40 calls g39 twice, which calls g38 twice..: more calls than there is time for, without any loop.
fn calls_that_double_are_refused() -> Outcome {
    let mut outside = "fn g0(x: f32) -> f32 { return x + 1.0; }\n".to_owned();
    for level in 1..=40 {
        let inner = level - 1;
        outside += &format!("fn g{level}(x: f32) -> f32 {{ return g{inner}(g{inner}(x)); }}\n");
    }
    let doubling = cell("doubling", text("", &outside));
    refuses!(Shader, add(doubling), "the cell `doubling`", "expressions in a call", "at most 8192");
    Ok(())
}

fn sources_that_nest_too_deep_or_are_too_long_are_refused() -> Outcome {
    let nested = "nest deeper than 128: name parts of the expression by `let`";
    let sum = |terms: usize| format!("sum = sum{};", " + sum".repeat(terms));
    for (name, body, part) in [
        ("many_terms", sum(200_000), "and may have at most 65536"),
        ("some_terms", sum(1000), nested),
        ("brackets", format!("sum = {}sum{};", "(".repeat(1000), ")".repeat(1000)), nested),
        ("calls", format!("sum = {}sum{};", "abs(".repeat(1000), ")".repeat(1000)), nested),
        ("blocks", format!("{}{}", "{".repeat(1000), "}".repeat(1000)), nested),
        ("chain", format!("if sum > 0.0 {{ }} {}", "else if sum > 1.0 { }".repeat(1000)), nested),
        ("plain_chain", format!("let up = sum > 0.0; if up {{ }} {}", "else if up { }".repeat(1000)), nested),
        ("types", format!("var a: {}f32{};", "array<".repeat(1000), ",1>".repeat(1000)), nested),
        ("large", "var a: array<f32, 268435456>; sum += a[u32(sum)];".to_owned(), "values have at most 1024"),
    ] {
        expect_refused(name, text(&body, ""), part);
    }
    Ok(())
}

/// A device is opened without optional features: what asks for one is refused here, not by the device.
fn capabilities_that_the_device_lacks_are_refused() -> Outcome {
    every_part_of(
        &[
            ("half", "enable f16;", "line 1: `enable` is refused"),
            ("groups", "enable subgroups;", "line 1: `enable` is refused"),
            (
                "extended",
                "requires readonly_and_readwrite_storage_textures;",
                "line 1: `requires` is refused",
            ),
            ("overriding", "override scale: f32;", "line 1: `override` is refused"),
        ],
        |first| format!("{first}\n{}", text("", "")),
    );
    // Words in comments, and in other words, are not meant.
    add(cell(
        "commented",
        text("let enabled = 1.0; // enable f16, override\n", "/* var<private> x: f32; */"),
    ))?;
    Ok(())
}

fn foreign_functions_and_variables_are_refused() -> Outcome {
    let global = "a cell has no variables outside its functions";
    every_part_of(
        &[
            ("workgroup", "var<workgroup> shared_sum: f32;", global),
            ("storage", "@group(0) @binding(9) var<storage, read_write> all: array<f32>;", global),
            ("private", "var<private> last: f32;", global),
            ("entry", "@compute @workgroup_size(1) fn own_main() {}", "declares an entry point"),
            ("same_entry", "@compute @workgroup_size(1) fn main() {}", "redefinition of `main`"),
            ("same_name", "const GATES: u32 = 3u;", "the layer around the cell uses this name"),
            ("same_type", "struct CellState { a: f32 }", "the layer around the cell uses this name"),
            ("replaced", "fn abs(x: f32) -> f32 { return x; }", "`abs` replaces a function of WGSL"),
        ],
        |outside| text("", outside),
    );
    every_part_of(
        &[
            ("parameters", "sum += f32(parameters.rows);", "uses `parameters`, a variable of the layer"),
            ("barrier", "workgroupBarrier();", "has a barrier"),
            ("internal", "sum += twice_artanh(0.5);", "calls `twice_artanh`, which is not a cell's to call"),
        ],
        |body| text(body, ""),
    );
    Ok(())
}

/// Loops over gates, helpers, tables, deep expressions and long straight text: what equations may be written in.
fn ordinary_text() -> String {
    let mut body = "
    sum = 0.0;
    for (var gate = 0u; gate < GATES; gate = gate + 1u) { sum += p[gate]; }
    for (var gate = i32(GATES) - 1; gate >= 0; gate--) { sum += q[gate]; }
    for (var i = 0; i <= 3; i += 1) { for (var j = 3; j > 0; j -= 1) { if j == 2 { continue; } sum += 0.0; } }
    if sum > 1e30 { sum = 1e30; } else if sum < -1e30 { sum = -1e30; } else { }
    sum += nothing(sum) * table[2];"
        .to_owned();
    body += &format!("\n    sum = sum{};", " + 0.0".repeat(100));
    body += &format!("\n    sum = {}sum{};", "max(-3e38, ".repeat(60), ")".repeat(60));
    body += &format!("\n    {}sum += 0.0;{}", "{ ".repeat(100), " }".repeat(100));
    body += &"\n    sum = sum * 1.0 + (previous.hidden - previous.hidden) * 0.5;".repeat(200);
    text(&body, "const table = array<f32, 3>(1.0, 2.0, 0.0);\nfn nothing(x: f32) -> f32 { return x * 0.0; }")
}

/// A program may call from a thread with a small stack: the compilers' is their own.
fn what_equations_need_runs_on_a_gpu_from_any_thread(adapter: &Adapter) -> Outcome {
    let device = &adapter.open()?;
    let cell = cell("ordinary", ordinary_text());
    let report = std::thread::scope(|scope| {
        let small = std::thread::Builder::new().stack_size(256 << 10);
        small.spawn_scoped(scope, move || custom_cell(&cell, device)).map(|thread| thread.join())
    });
    let report = report?.map_err(|_| "the thread panicked")??;
    assert!(report.passed(), "{report}");
    Ok(())
}

/// Where the wait for a submission ends that calls a cell's kernel, the error names the cell: its text is the first suspect.
fn a_wait_that_expires_names_the_running_cell(adapter: &Adapter) -> Outcome {
    let options = GpuOptions { wait_limit: Duration::from_nanos(1), ..GpuOptions::default() };
    let device = adapter.open_anew_with(&options)?;
    let mut model = Model::new(1);
    let rnn = model.add("rnn", Rnn::new(Cell::Custom(cell("slow", ordinary_text())), 2, 64))?;
    let parameters = model.initialize(&device)?;
    let x = Tensor::zeros(&device, &[200, 16, 2])?;
    let (y, _) = rnn.infer(&parameters, &x, &rnn.zero_state(&device, 16)?)?;
    let parts = ["did not end within", "slow", "a user's WGSL"];
    refuses!(DeviceLost, y.download(), all parts);
    Ok(())
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        loops_without_a_constant_end_are_refused_by_the_name_of_the_cell,
        calls_that_double_are_refused,
        sources_that_nest_too_deep_or_are_too_long_are_refused,
        capabilities_that_the_device_lacks_are_refused,
        foreign_functions_and_variables_are_refused,
    );
    on_gpu!(
        suite,
        what_equations_need_runs_on_a_gpu_from_any_thread,
        a_wait_that_expires_names_the_running_cell,
    );
}
