//! `refrain`: train, sample, check and time recurrent networks on any GPU. Uses the library's public interface only.

mod baseline;
mod bench;
mod check;
mod destination;
mod devices;
mod failure;
mod generate;
mod plot;
mod sample;
mod text;
mod train;
mod tune;
mod values;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Result;

/// Recurrent neural networks trained on any GPU.
#[derive(Parser)]
#[command(name = "refrain", version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a character model on a text, then let it write
    Train(Box<train::arguments::Arguments>),
    /// Write text with a trained model
    Sample(sample::Arguments),
    /// Compare a device with the 64-bit twin, operation by operation, or with golden cases
    Check(check::Arguments),
    /// Time recurrent layers, training steps and single operations on a device
    Bench(Box<bench::arguments::Arguments>),
    /// Measure the ways in which a GPU can compute what a training step at some shapes needs, and store the best
    Tune(Box<tune::arguments::Arguments>),
    /// Show the devices that are there, and which one is taken
    Devices,
}

/// Exit codes: 0 for success, 1 for a failure, 2 for wrong usage or for cases that are not supported yet.
fn main() -> ExitCode {
    match run(Program::parse().command) {
        Ok(code) => code,
        Err(failure) if failure.reader_is_gone() => ExitCode::SUCCESS,
        Err(failure) => {
            // Where standard error is closed there is nobody left to tell.
            writeln!(io::stderr(), "error: {failure}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Train(arguments) => train::run(&arguments)?,
        Command::Sample(arguments) => sample::run(&arguments)?,
        Command::Check(arguments) => return check::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments)?,
        Command::Tune(arguments) => tune::run(&arguments)?,
        Command::Devices => devices::run()?,
    }
    Ok(ExitCode::SUCCESS)
}
