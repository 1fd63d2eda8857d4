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
/// Control characters of texts, models and names are printed as escapes such as \u001b; line breaks and tabs are printed as
/// they are.
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
    let program = Program::from_arg_matches(&grammar().get_matches()).unwrap_or_else(|error| error.exit());
    match run(program.command) {
        Ok(code) => code,
        Err(failure) if failure.reader_is_gone() => ExitCode::SUCCESS,
        Err(failure) => {
            // Where standard error is closed there is nobody left to tell.
            writeln!(stderr(), "error: {failure}").ok();
            ExitCode::FAILURE
        }
    }
}

/// What may be typed. After an option, `-5` is its value: each option says itself why it refuses one.
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
