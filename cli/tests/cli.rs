//! The program as its user runs it: exit codes, messages, and what lies in the files afterwards.

#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/terminal.rs"]
mod terminal;
#[path = "cli/train.rs"]
mod train;
#[path = "cli/tune.rs"]
mod tune;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use refrain::{AdapterKind, Device};

/// A folder of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("refrain-cli-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.file(name), content).expect("a temporary file");
        self.file(name)
    }

    /// Runs the program in this folder.
    fn run(&self, words: &str) -> Output {
        self.command(words).output().expect("the program starts")
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_refrain"));
        command.current_dir(&self.0).args(words.split_whitespace()).env_remove("REFRAIN_DEVICE");
        // What this machine's owner has measured and stored is no part of any claim.
        command.env("REFRAIN_TUNING", "0");
        command
    }

    /// Runs the program, which must refuse: exit code 1, nothing on standard output, no trace of a panic. Returns the
    /// message.
    fn refused(&self, words: &str) -> String {
        let output = self.run(words);
        let message = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{words}: {message}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{words}");
        assert!(!message.contains("panicked") && !message.contains("Error {"), "{words}: {message}");
        message.lines().rfind(|line| line.starts_with("error: ")).expect("an error line").to_owned()
    }

    /// Runs the program, which must succeed; returns its standard output.
    fn succeeded(&self, words: &str) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the folder is there");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in the system's temporary folder is the system's to clean.
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A small and fast training run.
const SMALL: &str =
    "train --device cpu --steps 6 --hidden 8 --embedding 4 --batch 4 --sequence 8 --validations 2";

fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn wrong_usage_is_told_apart_by_its_exit_code() {
    let output = Folder::new("usage").run("train --cell swish");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("softsign"));
}

#[test]
fn numbers_that_are_none_are_refused_by_their_option() {
    let folder = Folder::new("numbers");
    for (words, expected) in [
        ("sample model --length -5", "invalid value '-5' for '--length <N>': must not be negative"),
        ("sample model --seed -1", "invalid value '-1' for '--seed <N>': must not be negative"),
        ("train --steps 1e3", "invalid value '1e3' for '--steps <N>': is not a whole number in digits"),
        ("train --hidden 1.5", "invalid value '1.5' for '--hidden <N>': is not a whole number in digits"),
        ("bench --batch -2", "invalid value '-2' for '--batch <N>': must not be negative"),
        ("tune --runs 99999999999999999999", "'--runs <N>': is too large"),
    ] {
        let output = folder.run(words);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {message}");
        assert!(message.contains(expected) && !message.contains("tip:"), "{words}: {message}");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_no_wrong_name() {
    let folder = Folder::new("no-hardware");
    let adapters = Device::list();
    if adapters.iter().any(|adapter| adapter.kind != AdapterKind::Software) {
        assert!(folder.succeeded("devices").contains("auto takes"));
        return;
    }
    for words in ["train --device gpu", "tune --dry-run", "bench --device GPU"] {
        let message = folder.refused(words);
        assert!(
            message.contains("error: no hardware GPU was found") && !message.contains("gpu:"),
            "{message}"
        );
        for adapter in &adapters {
            assert!(message.contains(&adapter.name), "{message}");
        }
    }
}

#[test]
fn files_that_are_no_checkpoint_are_refused() {
    let folder = Folder::new("no-checkpoint");
    folder.succeeded(SMALL);
    let whole = fs::read(folder.file("refrain.safetensors")).expect("a checkpoint");
    folder.write("cut.safetensors", &whole[..whole.len() - 7]);
    folder.write("header.safetensors", &whole[..6]);
    folder.write("noise.safetensors", [0xffu8; 64]);
    folder.write("empty.safetensors", "");
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut foreign = (header.len() as u64).to_le_bytes().to_vec();
    foreign.extend(header.as_bytes());
    foreign.extend([0; 4]);
    folder.write("foreign.safetensors", foreign);
    for (file, expected) in [
        ("nothing.safetensors", "nothing.safetensors: No such file"),
        ("cut.safetensors", "cut.safetensors: is not a complete safetensors file"),
        ("header.safetensors", "is not a complete safetensors file"),
        ("noise.safetensors", "is not a complete safetensors file"),
        ("empty.safetensors", "is empty, not a safetensors file"),
        (
            "refrain.svg",
            "refrain.svg: is an SVG image, not a safetensors file: `refrain train` writes the model to",
        ),
        ("foreign.safetensors", "no refrain model"),
    ] {
        let message = folder.refused(&format!("sample {file} --device cpu"));
        assert!(message.contains(expected), "{file}: {message}");
    }
    let message = folder.refused("sample refrain.safetensors --device cpu --prompt 1984");
    assert!(message.contains("--prompt: contains the character '1'"), "{message}");
    for options in ["--length 0", "--temperature nan", "--device cuda"] {
        folder.refused(&format!("sample refrain.safetensors {options}"));
    }
}

#[test]
fn devices_lists_the_cpu_and_what_auto_takes() {
    let folder = Folder::new("devices");
    let out = folder.succeeded("devices");
    assert!(out.contains("--device cpu") && out.contains("auto takes"), "{out}");
    let output = folder.command("devices").env("REFRAIN_DEVICE", "cpu").output().expect("the program starts");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(out.contains("auto takes  cpu (REFRAIN_DEVICE=cpu)"), "{out}");
    let output =
        folder.command("devices").env("REFRAIN_DEVICE", "cuda").output().expect("the program starts");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(out.contains("auto fails  no device matches `cuda`"), "{out}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = Folder::new("pipe");
    let mut child = folder
        .command(&format!("{SMALL} --json"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ends");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !message.contains("panicked"), "{message}");
}

#[test]
fn check_passes_on_the_cpu() {
    let out = Folder::new("check").succeeded("check --device cpu");
    assert!(out.contains("tolerance") && out.contains("all pass"), "{out}");
    // Results that never differ were not compared: most operations round.
    let rows: Vec<&str> = out.lines().filter(|line| line.ends_with("  pass")).collect();
    let exact = rows.iter().filter(|row| row.contains(" 0.00e0 ")).count();
    assert!(rows.len() > 100 && 2 * exact < rows.len(), "{exact} of {} are exact:\n{out}", rows.len());
}

#[test]
fn cases_that_are_not_there_are_refused() {
    let folder = Folder::new("cases");
    let message = folder.refused("check --device cpu --cases missing");
    assert!(message.contains("missing: No such file"), "{message}");
}

#[test]
fn the_program_says_its_version() {
    let out = Folder::new("version").succeeded("--version");
    assert_eq!(out.trim(), format!("refrain {}", env!("CARGO_PKG_VERSION")));
}
