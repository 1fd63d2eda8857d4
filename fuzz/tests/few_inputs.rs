//! Runs the program with few inputs. Continuous integration runs it with many.

use std::process::Command;

#[test]
fn every_target_survives_its_seeds_and_a_few_mutations() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_refrain-fuzz"));
    // Inputs that cause a fault are saved below the target folder of the workspace.
    program.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args(["--inputs", "200"]);
    let output = program.output().expect("the program starts");
    let (table, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}{errors}");
}
