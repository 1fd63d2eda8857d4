//! Rules of the code base that a compiler does not check, read from the sources.

use std::path::Path;

use libtest_mimic::Failed;

use crate::adapters::{Outcome, Suite, on_cpu};
use crate::support::root;

/// Layers of modules from the bottom up; code may name modules of its own layer and of those below.
const LAYERS: [&[&str]; 7] = [
    &["error", "file", "shape", "random", "math"],
    &["gpu"],
    &["device"],
    &["tensor"],
    &["ops"],
    &["nn", "loss", "optim"],
    &["io", "data", "check", "testing", "tuning", "prelude"],
];
/// What `lib.rs` re-exports, and the modules these names come from.
const REEXPORTS: [(&str, &str); 10] = [
    ("Error", "error"),
    ("Result", "error"),
    ("Shape", "shape"),
    ("Device", "device"),
    ("GpuOptions", "gpu"),
    ("AdapterKind", "gpu"),
    ("AdapterSummary", "gpu"),
    ("Tensor", "tensor"),
    ("Indices", "tensor"),
    ("View", "tensor"),
];

struct Source {
    path: String,
    text: String,
}

/// All files under `folder` with this extension, by their relative paths.
fn files(folder: &str, extension: &str) -> std::io::Result<Vec<Source>> {
    let (base, mut open, mut found) = (root().join(folder), vec![root().join(folder)], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let relative = path.strip_prefix(&base).unwrap_or(&path);
                let relative = relative.to_string_lossy().replace('\\', "/");
                found.push(Source { path: relative, text: std::fs::read_to_string(&path)? });
            }
        }
    }
    assert!(!found.is_empty(), "no {extension} files under {folder}: the rule would hold for nothing");
    Ok(found)
}

fn none(rule: &str, offences: &[String]) -> Outcome {
    match offences {
        [] => Ok(()),
        _ => Err(Failed::from(format!("{rule}:\n  {}", offences.join("\n  ")))),
    }
}

/// The lines of `source` that are code, numbered from one.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(source.text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn only_the_gpu_module_names_wgpu() -> Outcome {
    let mut offences = Vec::new();
    let mut inside = 0;
    for source in files("src", "rs")? {
        for (number, line) in
            code(&source).filter(|(_, line)| line.contains("wgpu::") || line.contains("use wgpu"))
        {
            match source.path.starts_with("gpu/") {
                true => inside += 1,
                false => offences.push(format!("src/{}:{number}: {}", source.path, line.trim())),
            }
        }
    }
    assert!(inside > 0, "not even src/gpu names wgpu: the search finds nothing");
    none("wgpu outside src/gpu", &offences)
}

fn what_is_printed_goes_through_the_module_that_escapes_it() -> Outcome {
    let mut offences = Vec::new();
    let mut inside = 0;
    for source in files("cli/src", "rs")? {
        let prints = |line: &str| {
            ["stdout()", "stderr()"].iter().any(|stream| line.contains(&format!("io::{stream}")))
                || ["println!", "print!"].iter().any(|name| line.contains(name))
        };
        for (number, line) in code(&source).filter(|(_, line)| prints(line)) {
            match source.path.as_str() {
                "terminal.rs" => inside += 1,
                _ => offences.push(format!("cli/src/{}:{number}: {}", source.path, line.trim())),
            }
        }
    }
    assert_eq!(inside, 2, "standard output and standard error");
    none("printed without cli/src/terminal.rs", &offences)
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The modules of this crate that a line of code names by `crate::`.
fn named_modules(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (start, _) in line.match_indices("crate::") {
        // `$crate::` in a macro and `crate::{A, B}` count; `pub(crate)` does not contain the colons.
        let rest = &line[start + "crate::".len()..];
        let group = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or_default().to_owned(),
            None => rest.to_owned(),
        };
        let heads =
            if rest.starts_with('{') { group.split(',').map(str::to_owned).collect() } else { vec![group] };
        for head in heads {
            let end = |letter: char| !(letter.is_alphanumeric() || letter == '_');
            let name = head.trim().split(end).next().unwrap_or_default().to_owned();
            let reexport = REEXPORTS.iter().find(|(reexport, _)| *reexport == name);
            names.push(reexport.map_or(name, |(_, module)| (*module).to_owned()));
        }
    }
    names
}

fn imports_go_down_only() -> Outcome {
    let mut offences = Vec::new();
    let mut seen = 0;
    for source in files("src", "rs")? {
        let module = source.path.split(['/', '.']).next().unwrap_or_default();
        // `lib.rs` names everything; a module of tests may use whatever it tests.
        if module == "lib" || source.path.ends_with("/tests.rs") {
            continue;
        }
        let Some(own) = layer(module) else {
            offences.push(format!("src/{}: `{module}` stands on no layer", source.path));
            continue;
        };
        // Tests inside a module may use whatever they test.
        for (number, line) in code(&source).take_while(|(_, line)| line.trim() != "mod tests {") {
            for named in named_modules(line) {
                seen += 1;
                if layer(&named).is_some_and(|layer| layer > own) {
                    offences.push(format!("src/{}:{number}: `{module}` names `{named}`", source.path));
                }
            }
        }
    }
    assert!(seen > 50, "only {seen} imports found: the search finds too little");
    none("imports that go up", &offences)
}

fn imports_are_read_from_lines_as_they_are_written() -> Outcome {
    assert_eq!(named_modules("use crate::gpu::{Buffer, Span};"), ["gpu"]);
    assert_eq!(named_modules("use crate::{Error, Result, ops};"), ["error", "error", "ops"]);
    assert_eq!(named_modules("$crate::device::Backend::Cpu(crate::nn::Model) =>"), ["device", "nn"]);
    assert!(named_modules("pub(crate) fn f()").is_empty());
    Ok(())
}

/// Each shader names its CPU reference, which must exist, or says why it has none.
fn shaders_name_their_cpu_references() -> Outcome {
    let mut offences = Vec::new();
    for source in files("shaders", "wgsl")?.into_iter().filter(|source| source.text.contains("@compute")) {
        let top: Vec<&str> = source.text.lines().take_while(|line| line.starts_with("//")).collect();
        let text = top.join(" ");
        if text.contains("No CPU reference: ") {
            continue;
        }
        let named = text.split_whitespace().map(|word| word.trim_end_matches(['.', ',', ';', ':']));
        let references: Vec<&str> =
            named.filter(|word| word.starts_with("src/ops/") && word.ends_with(".rs")).collect();
        if references.is_empty()
            || references.iter().any(|reference| !root().join(Path::new(reference)).exists())
        {
            offences.push(format!("shaders/{}: names {references:?}", source.path));
        }
    }
    none("shaders without a CPU reference", &offences)
}

/// The suite has its own harness: a function with the attribute would be compiled away.
fn every_test_is_registered_by_hand() -> Outcome {
    let mut offences = Vec::new();
    for source in files("tests/suite", "rs")? {
        let attributes = code(&source).filter(|(_, line)| line.trim() == "#[test]");
        offences.extend(attributes.map(|(number, _)| format!("tests/suite/{}:{number}", source.path)));
    }
    none("functions that the suite's harness never runs", &offences)
}

pub(crate) fn register(suite: &mut Suite) {
    on_cpu!(
        suite,
        only_the_gpu_module_names_wgpu,
        what_is_printed_goes_through_the_module_that_escapes_it,
        imports_go_down_only,
        imports_are_read_from_lines_as_they_are_written,
        shaders_name_their_cpu_references,
        every_test_is_registered_by_hand,
    );
}
