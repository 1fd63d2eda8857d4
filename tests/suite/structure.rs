//! Rules of the code base that a compiler does not check, read from the sources.

use std::collections::{BTreeMap, BTreeSet};
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

/// A module's path from the root of its crate: `gpu/mod.rs` is `["gpu"]`.
type Module = Vec<String>;

/// The modules of a crate, without their tests, and what they re-export.
struct Crate {
    /// The tokens of each module.
    modules: BTreeMap<Module, Vec<String>>,
    /// The path behind each name that a module re-exports, relative to that module.
    reexports: BTreeMap<(Module, String), Vec<String>>,
}

impl Crate {
    fn read(sources: &[Source]) -> Self {
        let (mut modules, mut reexports, mut tests) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for source in sources {
            let mut module: Module =
                source.path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
            module.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
            let lines: Vec<&str> =
                code(source).map(|(_, line)| line).take_while(|line| *line != "mod tests {").collect();
            let text = lines.join("\n");
            for declared in text.split("#[cfg(test)]\nmod ").skip(1) {
                let name = declared.split(';').next().unwrap_or_default();
                tests.push([&module[..], &[name.to_owned()]].concat());
            }
            let tokens = tokens(&text);
            for at in 2..tokens.len() {
                if tokens[at - 1] != "use" || !["pub", ")"].contains(&tokens[at - 2].as_str()) {
                    continue;
                }
                // A name alone is a macro, which is exported from where it is defined.
                for path in paths(&tokens[at..]).into_iter().filter(|path| path.len() > 1) {
                    let target = path.split(|name| name == "as").next().unwrap_or_default().to_vec();
                    reexports.insert((module.clone(), path[path.len() - 1].clone()), target);
                }
            }
            modules.insert(module, tokens);
        }
        modules.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        Self { modules, reexports }
    }

    /// The module that `path` leads to from `module`, through re-exports where it names them.
    fn resolve(&self, module: &[String], path: &[String]) -> Module {
        let mut at = if path[0] == "crate" { Module::new() } else { module.to_vec() };
        for (index, name) in path.iter().enumerate() {
            let inner = [&at[..], std::slice::from_ref(name)].concat();
            match name.as_str() {
                "crate" | "self" => {}
                "super" => drop(at.pop()),
                _ if self.modules.contains_key(&inner) => at = inner,
                _ => match self.reexports.get(&(at.clone(), name.clone())) {
                    Some(target) => return self.resolve(&at, &[target, &path[index + 1..]].concat()),
                    None => break,
                },
            }
        }
        at
    }

    /// The references between modules of the same folder: which one refers to which, and how it is written.
    fn references(&self) -> Vec<[String; 3]> {
        let mut found = Vec::new();
        for (module, tokens) in &self.modules {
            let is_head = |at: usize| {
                ["crate", "self", "super"].contains(&&*tokens[at]) && (at == 0 || tokens[at - 1] != "::")
            };
            for path in (0..tokens.len()).filter(|&at| is_head(at)).flat_map(|at| paths(&tokens[at..])) {
                let named = self.resolve(module, &path);
                let common = module.iter().zip(&named).take_while(|(one, two)| one == two).count();
                if common < module.len().min(named.len()) {
                    let written = format!("{}: {}", module.join("/"), path.join("::"));
                    found.push([module[..=common].join("/"), named[..=common].join("/"), written]);
                }
            }
        }
        found
    }
}

/// Those `references` that are part of a circle, of two modules or more.
fn in_circles(mut references: Vec<[String; 3]>) -> Vec<[String; 3]> {
    loop {
        let before = references.len();
        let side = |side: usize| references.iter().map(|reference| reference[side].clone()).collect();
        let [from, to]: [BTreeSet<String>; 2] = [side(0), side(1)];
        references.retain(|[one, two, _]| to.contains(one) && from.contains(two));
        if references.len() == before {
            return references;
        }
    }
}

/// Words, `::` and other symbols.
fn tokens(text: &str) -> Vec<String> {
    let apart = |text: String, symbol: char| text.replace(symbol, &format!(" {symbol} "));
    let spaced = "{}()[]<>,;.&$!*".chars().fold(text.replace("::", " :: "), apart);
    spaced.split_whitespace().map(str::to_owned).collect()
}

/// The paths at the beginning of `tokens`: those of a tree such as `gpu::{Buffer, kernel::Access as A}`.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let (mut found, mut path, mut open) = (Vec::new(), Vec::new(), Vec::new());
    let mut before = "::";
    for token in tokens.iter().map(String::as_str) {
        match token {
            "::" => {}
            "{" if before == "::" => open.push(path.len()),
            "," | "}" if !open.is_empty() => {
                found.push(path.clone());
                path.truncate(open.last().copied().unwrap_or_default());
                if token == "}" {
                    open.pop();
                }
            }
            _ if ["::", "{", ",", "as"].contains(&before) || token == "as" => path.push(token.to_owned()),
            _ => break,
        }
        before = token;
    }
    found.push(path);
    found.retain(|path| !path.is_empty());
    found
}

fn imports_go_down_only() -> Outcome {
    let read = Crate::read(&files("src", "rs")?);
    let top: BTreeSet<&String> = read.modules.keys().filter_map(|module| module.first()).collect();
    let unknown = top.into_iter().filter(|module| layer(module).is_none());
    let mut offences: Vec<String> = unknown.map(|module| format!("`{module}` stands on no layer")).collect();
    let mut references = read.references();
    references.retain(|[from, to, _]| layer(from).is_some() && layer(to).is_some());
    assert!(references.len() > 50, "only {} imports found: the search finds too little", references.len());
    references.retain(|[from, to, _]| layer(from) < layer(to));
    offences.extend(references.into_iter().map(|[_, _, written]| written));
    none("imports that go up", &offences)
}

fn modules_of_a_folder_form_no_circle() -> Outcome {
    let mut offences = Vec::new();
    for folder in ["src", "cli/src", "fuzz/src"] {
        let references = in_circles(Crate::read(&files(folder, "rs")?).references());
        // One example of each pair.
        let pairs: BTreeMap<[String; 2], String> =
            references.into_iter().map(|[from, to, written]| ([from, to], written)).collect();
        offences.extend(pairs.values().map(|written| format!("{folder}/{written}")));
    }
    none("modules that refer to each other", &offences)
}

fn circles_are_found_through_other_modules_and_reexports() -> Outcome {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let mut sources = [
        source("lib.rs", "pub use crate::top::{\n    a::X as Y,\n};"),
        source("top/mod.rs", "mod a;\n#[cfg(test)]\nmod checks;"),
        source("top/a.rs", "use super::{b::B, d};\n// use super::e;"),
        source("top/b.rs", "fn f() -> u8 {\n    crate::top::c::C as u8\n}"),
        source("top/c.rs", "use crate::Y;\nmod tests {\nuse super::super::d;"),
        source("top/d.rs", ""),
        source("top/e.rs", "use super::a;"),
        source("top/checks.rs", "use super::e;"),
    ];
    let found = in_circles(Crate::read(&sources).references());
    let pairs: Vec<String> = found.iter().map(|[from, to, _]| format!("{from} {to}")).collect();
    assert_eq!(pairs, ["top/a top/b", "top/b top/c", "top/c top/a"]);
    sources[4].text = "use crate::Z;".to_owned();
    assert!(in_circles(Crate::read(&sources).references()).is_empty());
    Ok(())
}

/// Each shader names its CPU reference, which must exist, or says why it has none.
fn shaders_name_their_cpu_references() -> Outcome {
    let mut offences = Vec::new();
    // The entry point of element-wise kernels is in `lib/elements.wgsl`.
    let is_kernel =
        |source: &Source| ["@compute", "fn compute("].iter().any(|start| source.text.contains(start));
    for source in files("shaders", "wgsl")?.into_iter().filter(is_kernel) {
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
        modules_of_a_folder_form_no_circle,
        circles_are_found_through_other_modules_and_reexports,
        shaders_name_their_cpu_references,
        every_test_is_registered_by_hand,
    );
}
