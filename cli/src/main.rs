//! `refrain`: trains, samples, checks and times recurrent networks on any GPU. Uses only the library's public interface.

mod baseline;
mod bench;
mod check;
mod destination;
mod devices;
mod failure;
mod format;
mod generate;
mod memory;
mod plot;
mod sample;
mod terminal;
mod text;
mod train;
mod tune;
mod values;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::failure::Result;
use crate::terminal::stderr;

/// Recurrent neural networks trained on any GPU.
///
/// Prints control characters in texts, models and names as escapes such as \u001b, except line breaks and tabs.
#[derive(Parser)]
#[command(name = "refrain", version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a character model on a text and print samples
    Train(Box<train::arguments::Arguments>),
    /// Generate text with a trained model
    Sample(sample::Arguments),
    /// Compare a device with the 64-bit CPU reference, operation by operation, or with golden cases
    Check(check::Arguments),
    /// Time recurrent layers, training steps and single operations on a device
    Bench(Box<bench::arguments::Arguments>),
    /// Measure the implementations that a GPU can use for training steps of some shapes, and store the fastest
    Tune(Box<tune::arguments::Arguments>),
    /// List all devices, and the one selected by `auto`
    Devices,
}

/// Exit codes: 0 for success, 1 for a failure, 2 for wrong usage or for unsupported cases.
fn main() -> ExitCode {
    let program = Program::from_arg_matches(&grammar().get_matches()).unwrap_or_else(|error| error.exit());
    match run(program.command) {
        Ok(code) => code,
        Err(failure) if failure.reader_is_gone() => ExitCode::SUCCESS,
        Err(failure) => {
            // If standard error is closed the message cannot be shown.
            writeln!(stderr(), "error: {failure}").ok();
            ExitCode::FAILURE
        }
    }
}

/// The command line. `-5` after an option is its value: each option validates its own values.
fn grammar() -> clap::Command {
    let takes_negatives = |argument: clap::Arg| {
        let is_option = argument.get_long().is_some() && argument.get_action().takes_values();
        argument.allow_negative_numbers(is_option)
    };
    Program::command().mut_subcommands(|command| command.mut_args(takes_negatives))
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
