//! `refrain train`: what it writes and says, and what it refuses before any work or stops at.

use std::fs;
use std::process::Command;

use super::{Folder, SMALL, json_lines};

#[test]
fn training_writes_a_checkpoint_a_curve_and_samples_that_sample_can_continue() {
    let folder = Folder::new("round-trip");
    let out = folder.succeeded(SMALL);
    for part in ["device      cpu", "parameters", "step 3:", "step 6:", "unigram", "bigram", "samples at"] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let samples = out.lines().skip_while(|line| !line.starts_with("samples")).skip(1).count();
    assert_eq!(samples, 5, "{out}");
    assert_eq!(folder.names(), ["refrain.safetensors", "refrain.svg"]);
    let svg = fs::read_to_string(folder.file("refrain.svg")).expect("a curve");
    assert!(svg.contains("bits per character"));

    let sample = "sample refrain.safetensors --device cpu --prompt Mont --length 40";
    let text = folder.succeeded(sample);
    assert!(text.starts_with("Mont") && text.trim_end().chars().count() <= 44, "{text}");
    assert_eq!(folder.succeeded(sample), text, "the same seed writes the same text");
    assert_ne!(folder.succeeded(&format!("{sample} --seed 2")), text);
    let likeliest = format!("{sample} --temperature 0");
    assert_eq!(folder.succeeded(&likeliest), folder.succeeded(&format!("{likeliest} --seed 2")));
}

#[test]
fn dropout_and_a_sliding_window_train_and_validation_drops_nothing() {
    let folder = Folder::new("dropout");
    let options = format!("{SMALL} --cell gru --layers 2 --dropout 0.5 --truncation window:3 --json");
    let validations = |options: &str| -> Vec<String> {
        let lines = json_lines(&folder.succeeded(options)).into_iter();
        lines.filter(|line| line["unigram"].is_f64()).map(|line| line.to_string()).collect()
    };
    let bits = validations(&options);
    assert_eq!(bits.len(), 2);
    assert_eq!(validations(&options), bits, "the same seed drops the same units");
    assert_ne!(validations(&options.replace("--dropout 0.5", "--dropout 0.25")), bits);
    // A step of no size leaves the weights as they are: every validation of them says the same.
    let still = validations(&format!("{options} --learning-rate 1e-30 --weight-decay 0"));
    let value = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["validation_bits_per_character"].clone()
    };
    assert_eq!(value(&still[0]), value(&still[1]));
}

#[test]
fn json_is_all_that_programs_get() {
    let folder = Folder::new("json");
    let lines = json_lines(&folder.succeeded(&format!("{SMALL} --json")));
    let steps: Vec<u64> = lines
        .iter()
        .filter(|line| line["loss"].is_f64())
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    let validations: Vec<_> =
        lines.iter().filter(|line| line["validation_bits_per_character"].is_f64()).collect();
    assert_eq!(validations.len(), 2);
    assert_eq!(validations[1]["step"], 6);
    assert!(validations[1]["bigram"].as_f64().unwrap() < validations[1]["unigram"].as_f64().unwrap());
    assert_eq!(lines.len(), 8);
}

#[test]
fn every_device_on_the_cpu_follows_the_same_losses() {
    let folder = Folder::new("devices-agree");
    let losses = |device: &str| -> Vec<f64> {
        let words = format!("{SMALL} --json").replace("--device cpu", &format!("--device {device}"));
        json_lines(&folder.succeeded(&words)).iter().filter_map(|line| line["loss"].as_f64()).collect()
    };
    let (single, double) = (losses("cpu"), losses("reference"));
    assert_eq!(single.len(), 6);
    for (one, two) in single.iter().zip(&double) {
        assert!((one - two).abs() <= 1e-3 * two, "{one} {two}");
    }
}

#[test]
fn short_text_trains_with_fewer_sequences() {
    let folder = Folder::new("short-text");
    folder.write("README.md", "Recurrent networks read one character after the other.\n".repeat(6));
    let out = folder.succeeded("train --device cpu --text README.md --steps 5 --hidden 8");
    assert!(out.contains("5 steps of 9 x 32 characters"), "{out}");
}

#[test]
fn one_hot_relu_stacks_and_sgd_train_too() {
    let folder = Folder::new("options");
    let words = "train --device cpu --steps 4 --hidden 8 --layers 2 --one-hot --cell relu --batch 4 \
                 --optimizer sgd --momentum 0.5 --learning-rate 0.1 --schedule constant --no-clip --samples 0";
    let out = folder.succeeded(words);
    for part in ["one-hot 47, 2 x rnn 8 (relu)", "sgd 0.1 (constant)", "not clipped"] {
        assert!(out.contains(part), "{part} in {out}");
    }
    folder.succeeded("sample refrain.safetensors --device cpu --length 5");
}

#[test]
fn lstm_and_gru_stacks_train_and_their_checkpoints_write() {
    let folder = Folder::new("gated");
    for (cell, truncation, expected) in [
        ("lstm", "", "characters, adam"),
        ("gru", " --truncation 3", "characters truncated at every 3, adam"),
    ] {
        let out = folder.succeeded(&format!(
            "train --device cpu --cell {cell} --layers 2 --steps 5 --hidden 8 --embedding 4 --batch 4 \
             --sequence 8 --validations 1 --samples 1{truncation}"
        ));
        assert!(out.contains(&format!("2 x {cell} 8, linear")) && out.contains(expected), "{out}");
        let sample = "sample refrain.safetensors --device cpu --prompt Mont --length 40";
        let text = folder.succeeded(sample);
        assert!(text.starts_with("Mont") && text.trim_end().chars().count() > 4, "{text}");
        assert_eq!(folder.succeeded(sample), text);
    }
}

#[test]
fn truncation_changes_the_gradients_and_not_the_outputs() {
    let folder = Folder::new("truncation");
    let losses = |options: &str| -> Vec<f64> {
        let out = folder.succeeded(&format!("{SMALL} --cell lstm --json{options}"));
        json_lines(&out).iter().filter_map(|line| line["loss"].as_f64()).collect()
    };
    let (whole, cut) = (losses(""), losses(" --truncation 2"));
    assert_eq!(whole[0], cut[0], "the first loss is before any gradient");
    assert_ne!(whole[1..], cut[1..]);
    assert_eq!(whole, losses(" --truncation 8"), "a cut where the window begins changes nothing");
}

#[test]
fn unusable_text_is_refused() {
    let folder = Folder::new("text");
    folder.write("empty.txt", "");
    folder.write("tiny.txt", "too short");
    folder.write("latin1.txt", b"caf\xe9 au lait, s'il vous pla\xeet");
    for (file, expected) in [
        ("empty.txt", "the text is empty"),
        ("tiny.txt", "of its 9 characters 1 are held out for validation and 8 are left for training"),
        ("latin1.txt", "not UTF-8 text: byte 3"),
        ("missing.txt", "missing.txt: No such file"),
        (".", "is a folder"),
    ] {
        let message = folder.refused(&format!("train --device cpu --steps 2 --text {file}"));
        assert!(message.contains(expected), "{file}: {message}");
    }
    assert_eq!(folder.names(), ["empty.txt", "latin1.txt", "tiny.txt"]);
}

#[cfg(unix)]
#[test]
fn a_device_is_no_text() {
    let message = Folder::new("null").refused("train --device cpu --text /dev/null");
    assert!(message.contains("/dev/null: is a device, not a regular file"), "{message}");
}

#[test]
fn absurd_options_are_refused_before_any_work() {
    let folder = Folder::new("absurd");
    for (options, expected) in [
        ("--hidden 0", "--hidden: must be between 1"),
        ("--truncation 33", "--truncation: must be at most the 32 steps"),
        ("--truncation window:32", "--truncation: window:32 must be below the 32 steps"),
        ("--dropout 0.2", "--dropout: applies between layers"),
        ("--dropout 1 --layers 2", "--dropout: must be at least 0 and below 1"),
        ("--steps 0", "--steps: must be at least 1"),
        ("--learning-rate 1e9", "--learning-rate: must be above 0 and at most 100"),
        ("--temperature=-1", "--temperature: must be between 0 and 100"),
        ("--hidden 16000000", "limit is"),
        ("--batch 1000000", "but 1000000 x 32 steps need 32000001"),
        ("--checkpoint both.svg --plot ./both.svg", "is also --checkpoint"),
        ("--device cuda", "no device matches `cuda`; available: cpu"),
    ] {
        let device = if options.contains("--device") { "" } else { "--device cpu" };
        let message = folder.refused(&format!("train {device} {options}"));
        assert!(message.contains(expected), "{options}: {message}");
    }
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

/// An untamed network: nothing bounds its states or its steps.
const UNTAMED: &str = "train --device cpu --cell identity --no-clip --hidden 16 --batch 4 --sequence 64 \
                       --weight-decay 0 --schedule constant";

#[test]
fn a_loss_that_is_no_number_stops_training_with_step_and_advice() {
    let folder = Folder::new("diverged");
    folder.write("refrain.safetensors", "an older file");
    let output = folder.run(&format!("{UNTAMED} --learning-rate 100 --steps 50 --validations 50"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("the validation loss is not finite at step 1"), "{message}");
    assert!(message.contains("lower --learning-rate (it was 100)"), "{message}");
    assert!(message.contains("not written a checkpoint yet"), "{message}");
    assert_eq!(fs::read_to_string(folder.file("refrain.safetensors")).expect("the file"), "an older file");
}

#[test]
fn an_exploding_loss_stops_training_and_keeps_the_last_checkpoint() {
    let folder = Folder::new("exploded");
    let output = folder.run(&format!("{UNTAMED} --learning-rate 0.1 --steps 400 --validations 100 --json"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    let (_, kept) = message.split_once("refrain.safetensors contains the model of step ").expect(&message);
    let out = String::from_utf8_lossy(&output.stdout);
    let validated = json_lines(&out).into_iter().filter(|line| line["unigram"].is_f64());
    let last = validated.map(|line| line["step"].to_string()).next_back().expect("a validation");
    assert_eq!(kept.trim(), last, "{message}");
    folder.succeeded("sample refrain.safetensors --device cpu --length 5");
}

#[test]
fn unwritable_destinations_are_refused_before_training() {
    let folder = Folder::new("destinations");
    fs::create_dir(folder.file("folder")).expect("a folder");
    for (options, expected) in [
        ("--checkpoint missing/model.safetensors", "missing/model.safetensors: No such file"),
        ("--plot missing/curve.svg", "missing/curve.svg: No such file"),
        ("--checkpoint folder", "--checkpoint: folder: is a folder, not a regular file"),
    ] {
        let message = folder.refused(&format!("train --device cpu {options}"));
        assert!(message.contains(expected), "{options}: {message}");
    }
    assert_eq!(folder.names(), ["folder"]);
}

#[cfg(target_os = "linux")]
/// A limit on the size of a file stands for a full disk.
#[cfg(unix)]
#[test]
fn destinations_without_room_are_refused_before_training() {
    let folder = Folder::new("no-room");
    let program = env!("CARGO_BIN_EXE_refrain");
    let mut command = Command::new("sh");
    // Whoever writes more gets an error, where the signal is ignored.
    command.args(["-c", &format!("trap '' XFSZ; ulimit -f 1; exec '{program}' {SMALL}")]);
    let output = command.current_dir(&folder.0).output().expect("a shell");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("refrain.safetensors: File too large"), "{message}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing was trained");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn a_device_file_is_never_replaced() {
    let folder = Folder::new("device-file");
    for option in ["--checkpoint", "--plot"] {
        let message = folder.refused(&format!("train --device cpu {option} /dev/full"));
        assert!(message.contains("/dev/full: is a device, not a regular file"), "{message}");
    }
}

#[test]
fn a_failed_run_leaves_the_old_checkpoint_alone() {
    let folder = Folder::new("old-checkpoint");
    folder.write("refrain.safetensors", "an older file");
    folder.refused("train --device cpu --steps 2 --plot missing/curve.svg");
    folder.refused("train --device cpu --hidden 0");
    assert_eq!(fs::read_to_string(folder.file("refrain.safetensors")).expect("the file"), "an older file");
}
