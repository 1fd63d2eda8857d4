//! What reaches the terminal: nothing that is not the program's own, and no character that a terminal obeys.

use std::fs;

use refrain::Device;

use super::{Folder, SMALL};

/// Whether a terminal could obey a part of `text`.
fn is_obeyed(text: &str) -> bool {
    let overrides = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().any(|c| overrides(c) || (c.is_control() && c != '\n' && c != '\t'))
}

#[test]
fn a_machine_without_a_window_system_sees_no_word_of_one() {
    let folder = Folder::new("headless");
    let mut commands = vec!["devices".to_owned(), "check --device cpu --cases missing".to_owned()];
    // Each adapter is opened once; a machine without any still lists them.
    let adapters =
        Device::list().into_iter().map(|adapter| format!("{SMALL} --device gpu:{}", adapter.index));
    commands
        .extend(adapters.map(|words| words.replace("--device cpu ", "").replace("--steps 6", "--steps 1")));
    for words in commands {
        let mut command = folder.command(&words);
        for variable in ["XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "DISPLAY"] {
            command.env_remove(variable);
        }
        let output = command.output().expect("the program starts");
        let message = String::from_utf8_lossy(&output.stderr);
        let own = message.lines().all(|line| line.starts_with("error: missing: "));
        assert!(own, "{words}: {message}");
        assert_eq!(output.status.success(), !words.contains("missing"), "{words}: {message}");
    }
}

#[test]
fn control_characters_of_a_text_are_escaped_wherever_they_are_printed() {
    let folder = Folder::new("escapes");
    let hostile = "\u{1b}]0;title\u{7}\u{9b}31m\u{202e}\u{7f}ab\n";
    folder.write("a\u{1b}[31m.txt", hostile.repeat(40));
    let words = format!("{SMALL} --samples 3 --temperature 100 --text");
    let mut command = folder.command(&words);
    let output = command.arg("a\u{1b}[31m.txt").output().expect("the program starts");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{error}");
    assert!(out.contains("a\\u001b[31m.txt: "), "{out}");
    let (_, samples) = out.split_once("samples at temperature").expect("samples");
    assert!(samples.contains("\\u001b") || samples.contains("\\u009b"), "{samples}");
    assert!(!is_obeyed(&out) && !is_obeyed(&error), "{out:?} {error:?}");
    let plot = fs::read_to_string(folder.file("refrain.svg")).expect("the loss curve");
    assert!(!is_obeyed(&plot) && plot.contains("a\\u001b[31m.txt"), "the title of the loss curve");

    let sample = "sample refrain.safetensors --device cpu --temperature 100 --length 400";
    let out = folder.succeeded(sample);
    for part in ["\\u001b", "\\u0007", "\\u009b", "\\u202e", "\\u007f"] {
        assert!(out.contains(part), "{part} in {out}");
    }
    assert!(!is_obeyed(&out), "{out:?}");
    let message = folder.refused(&format!("{sample} --prompt \u{1b}z"));
    assert!(message.contains("contains the character 'z'") && !is_obeyed(&message), "{message:?}");
    for words in ["check --device cpu --cases", "sample"] {
        let output = folder.command(words).arg("\u{1b}[2J.safetensors").output().expect("the program starts");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("\\u001b[2J.safetensors: ") && !is_obeyed(&message), "{message:?}");
    }
}

#[test]
fn marks_and_line_ends_are_no_characters_to_learn_and_this_is_said() {
    let folder = Folder::new("line-ends");
    let lines = "Alba\nBari\nComo\n".repeat(30);
    folder.write("plain.txt", &lines);
    folder.write("windows.txt", format!("\u{feff}{}", lines.replace('\n', "\r\n")));
    folder.write("old.txt", lines.replace('\n', "\r"));
    let losses = |file: &str| {
        let output = folder.run(&format!("{SMALL} --json --text {file}"));
        assert!(output.status.success());
        let own = String::from_utf8(output.stdout).expect("UTF-8");
        (own, String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let (expected, silence) = losses("plain.txt");
    assert_eq!(silence, "");
    let said = "a byte-order mark was dropped and 90 line ends were changed to \\n";
    assert_eq!(losses("windows.txt"), (expected.clone(), format!("windows.txt: {said}\n")));
    assert_eq!(losses("old.txt"), (expected, "old.txt: 90 line ends were changed to \\n\n".to_owned()));
}

#[test]
fn texts_that_are_not_utf_8_are_named() {
    let folder = Folder::new("encodings");
    let text = "Torino e Milano\n".repeat(20);
    let wide = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    folder.write("marked.txt", [&[0xff, 0xfe], wide(u16::to_le_bytes).as_slice()].concat());
    folder.write("little.txt", wide(u16::to_le_bytes));
    folder.write("big.txt", wide(u16::to_be_bytes));
    folder.write("latin.txt", b"caf\xe9 au lait, s'il vous pla\xeet");
    for (file, expected) in [
        ("marked.txt", "marked.txt: is UTF-16LE"),
        ("little.txt", "little.txt: is UTF-16LE"),
        ("big.txt", "big.txt: is UTF-16BE"),
        ("latin.txt", "latin.txt: is not UTF-8 text: byte 3 is 0xe9"),
    ] {
        let message = folder.refused(&format!("train --device cpu --text {file}"));
        assert!(message.contains(expected) && message.contains("iconv -f "), "{file}: {message}");
    }
}
