//! `refrain tune`: what it measures and stores, and what other commands say of it. Which way is the fastest is no claim.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use refrain::io::save_tuning;
use refrain::tuning::{RecurrentShape, RecurrentStrategy, Tuning};
use refrain::{AdapterSummary, Device};
use serde_json::Value;

use super::{Folder, json_lines};

/// Sizes that are measured in no time.
const SIZES: &str = "--cell gru --hidden 8 --batch 2 --sequence 4 --classes 5 --runs 3 --seconds 0";
/// The first adapter, whatever it is.
const ADAPTER: &str = "gpu:0";

/// Runs the program with stored choices in the folder `tuning`.
fn run(folder: &Folder, words: &str) -> Output {
    let mut command = folder.command(words);
    command.env("REFRAIN_TUNING", folder.file("tuning")).output().expect("the program starts")
}

fn succeeded(folder: &Folder, words: &str) -> (String, String) {
    let mut output = run(folder, words);
    // On a busy machine choices may seem slower: the program then says so and stores nothing. Times are no claim here.
    for _ in 0..4 {
        if !String::from_utf8_lossy(&output.stderr).contains("measure again while nothing else runs") {
            break;
        }
        output = run(folder, words);
    }
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{words}: {error}");
    (String::from_utf8(output.stdout).expect("UTF-8"), error)
}

/// The only file in the folder `tuning`.
fn file(folder: &Folder) -> PathBuf {
    let entries = fs::read_dir(folder.file("tuning")).expect("the folder was created");
    let files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// The first adapter; none on a machine without, where the program must say so.
fn adapter(folder: &Folder) -> Option<AdapterSummary> {
    let adapter = Device::list().into_iter().next();
    if adapter.is_none() {
        let message = folder.refused(&format!("tune --device {ADAPTER} --dry-run {SIZES}"));
        assert!(message.contains("no device matches `gpu:0`"), "{message}");
    }
    adapter
}

fn bench_line(folder: &Folder) -> Value {
    let words = format!("bench --device {ADAPTER} --work infer --json {SIZES}");
    json_lines(&succeeded(folder, &words).0).remove(0)
}

#[test]
fn what_is_measured_is_stored_and_bench_and_devices_say_so() {
    let folder = Folder::new("tune");
    let Some(adapter) = adapter(&folder) else { return };
    assert!(bench_line(&folder)["tuning"].is_null());
    assert!(succeeded(&folder, "devices").0.contains("tuning none, using heuristics"));
    let lines = json_lines(&succeeded(&folder, &format!("tune --device {ADAPTER} --json {SIZES}")).0);
    let (summary, lines) = lines.split_last().expect("lines");
    let operations: Vec<&str> = lines.iter().filter_map(|line| line["operation"].as_str()).collect();
    // A step of a GRU with a head: W_ih x, the head, its input's gradient; the gradients of four matrices; the loop.
    for (operation, least) in [("product A B'", 2), ("product A B", 1), ("product A' B", 3), ("gru steps", 1)]
    {
        let found = operations.iter().filter(|&&found| found == operation).count();
        assert!(found >= least, "{found} of {operation} in {operations:?}");
    }
    for line in lines {
        let number = |field: &str| line[field].as_f64().unwrap_or(f64::NAN);
        let ratio = number("heuristic_milliseconds") / number("best_milliseconds");
        assert!((ratio - number("ratio")).abs() <= 1e-9 * ratio, "{line}");
        assert!(line["chosen"] == false || ratio >= 1.05, "{line}");
    }
    let compared = operations.iter().filter(|&&operation| operation != "train").count() as u64;
    assert_eq!(summary["compared"].as_u64(), Some(compared));
    let path = file(&folder);
    assert_eq!(summary["stored"].as_str(), path.to_str());
    let stored = Tuning::load(&path, &adapter).expect("a file of choices");
    assert_eq!(summary["choices"].as_u64(), Some(stored.len() as u64));
    assert_eq!(summary["chosen"], summary["choices"], "nothing was stored before");
    assert_eq!(bench_line(&folder)["tuning"].as_u64(), Some(stored.len() as u64));
    let (out, _) = succeeded(&folder, &format!("bench --device {ADAPTER} --work infer {SIZES}"));
    assert!(out.contains(&format!("tuning      measured choices: {}, in ", stored.len())), "{out}");
}

/// Runs the program without the variable, in a home of its own.
fn without_variable(folder: &Folder, words: &str) -> (String, String) {
    let mut command = folder.command(words);
    let home = folder.file("home");
    let caches = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = caches.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    if let Some(caches) = caches {
        // The cache of Mesa's drivers stays where it is: compiling all shaders anew takes a minute.
        command.env("MESA_SHADER_CACHE_DIR", caches);
    }
    command.env_remove("REFRAIN_TUNING").env("HOME", &home).env("XDG_CACHE_HOME", home.join("cache"));
    let output = command.output().expect("the program starts");
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{words}: {error}");
    (String::from_utf8(output.stdout).expect("UTF-8"), error)
}

/// Where caches are is known for Linux only: elsewhere the test would write to its owner's.
#[cfg(target_os = "linux")]
#[test]
fn choices_are_stored_but_not_obeyed_without_the_variable() {
    let folder = Folder::new("tune-off");
    if adapter(&folder).is_none() {
        return;
    }
    let (out, _) = without_variable(&folder, "devices");
    assert!(
        out.contains("tuning off, using heuristics (`refrain tune` measures, REFRAIN_TUNING=on"),
        "{out}"
    );
    let (out, _) = without_variable(&folder, &format!("tune --device {ADAPTER} {SIZES}"));
    assert!(out.contains("set REFRAIN_TUNING=on to use them"), "{out}");
    let stored = fs::read_dir(folder.file("home/cache/refrain/tuning")).expect("the folder was created");
    assert_eq!(stored.count(), 1);
    let bench = format!("bench --device {ADAPTER} --work infer {SIZES}");
    assert!(json_lines(&without_variable(&folder, &format!("{bench} --json")).0)[0]["tuning"].is_null());
    let (out, _) = without_variable(&folder, &bench);
    assert!(
        out.contains("tuning      off, using heuristics (REFRAIN_TUNING=on uses measured choices: "),
        "{out}"
    );
    for (value, obeys) in [("on", true), ("1", true), ("off", false), ("0", false), ("", false)] {
        let mut command = folder.command(&format!("{bench} --json"));
        command.env("REFRAIN_TUNING", value).env("XDG_CACHE_HOME", folder.file("home/cache"));
        let output = command.output().expect("the program starts");
        let lines = json_lines(&String::from_utf8(output.stdout).expect("UTF-8"));
        assert_eq!(lines[0]["tuning"].is_u64(), obeys, "REFRAIN_TUNING={value}: {}", lines[0]);
    }
}

/// The file of stored choices in the folder `tuning`, with these.
fn stored_before(folder: &Folder, adapter: &AdapterSummary, tuning: &Tuning) -> PathBuf {
    let name = Tuning::stored_path(adapter).and_then(|path| Some(path.file_name()?.to_owned()));
    let path = match name {
        Some(name) => folder.file("tuning").join(name),
        // The name of the file is not told where the environment of the tests has no place for it.
        None => {
            succeeded(folder, &format!("tune --device {ADAPTER} {SIZES}"));
            file(folder)
        }
    };
    fs::create_dir_all(folder.file("tuning")).expect("a folder");
    save_tuning(&path, tuning, adapter).expect("a file that can be written");
    path
}

#[test]
fn choices_for_other_shapes_stay_and_a_dry_run_stores_nothing() {
    let folder = Folder::new("tune-merge");
    let Some(adapter) = adapter(&folder) else { return };
    let mut tuning = Tuning::new();
    let other = RecurrentShape { gates: 4, hidden_size: 77, rows: 3 };
    tuning.set_recurrent(other, RecurrentStrategy::PerStep).expect("a choice");
    let path = stored_before(&folder, &adapter, &tuning);
    assert_eq!(bench_line(&folder)["tuning"], 1);
    let tune = format!("tune --device {ADAPTER} {SIZES}");
    succeeded(&folder, &format!("{tune} --dry-run"));
    assert_eq!(Tuning::load(&path, &adapter).expect("the same file"), tuning, "a dry run stores nothing");
    let (out, _) = succeeded(&folder, &tune);
    assert!(out.contains("gru steps") && out.contains("stored      measured choices: "), "{out}");
    assert_eq!(file(&folder), path);
    let merged = Tuning::load(&path, &adapter).expect("a file of choices");
    assert_eq!(merged.recurrent(other), Some(RecurrentStrategy::PerStep));
}

#[test]
fn a_file_that_cannot_be_understood_is_a_warning_and_is_replaced_by_tuning_again() {
    let folder = Folder::new("tune-broken");
    let Some(adapter) = adapter(&folder) else { return };
    let path = stored_before(&folder, &adapter, &Tuning::new());
    fs::write(&path, "half a fi").expect("a file that can be written");
    let (out, warning) = succeeded(&folder, &format!("bench --device {ADAPTER} --work infer {SIZES}"));
    for part in ["warning: stored choices are ignored", "is not JSON", "run `refrain tune` again"] {
        assert!(warning.contains(part), "{part} in {warning}");
    }
    assert!(out.contains("tuning      ignored, using heuristics: "), "{out}");
    assert!(succeeded(&folder, "devices").0.contains("tuning ignored, using heuristics: "));
    let (_, none) = without_variable(&folder, &format!("bench --device {ADAPTER} --work infer {SIZES}"));
    assert!(!none.contains("warning"), "the file was not asked for: {none}");
    let (_, error) = succeeded(&folder, &format!("tune --device {ADAPTER} {SIZES}"));
    assert!(error.contains("replaced: ") && error.contains("is not JSON"), "{error}");
    Tuning::load(&path, &adapter).expect("a whole file");
}

#[test]
fn what_cannot_be_tuned_or_stored_is_refused_before_anything_is_measured() {
    let folder = Folder::new("tune-refused");
    for device in ["cpu", "reference", "CPU"] {
        let message = folder.refused(&format!("tune --device {device} --dry-run {SIZES}"));
        assert!(
            message.contains("--device: ") && message.contains("one implementation of each"),
            "{message}"
        );
    }
    let message = folder.refused("tune --device cpu --dry-run --hidden 0");
    assert!(message.contains("--hidden: must be between 1"), "{message}");
    if adapter(&folder).is_some() {
        // The tests' own setting.
        let message = folder.refused(&format!("tune --device {ADAPTER} {SIZES}"));
        assert!(message.contains("REFRAIN_TUNING=0") && message.contains("--dry-run"), "{message}");
    }
}
