//! The commands of this crate as a program of their own.

#![allow(missing_docs, reason = "a thin wrapper")]

use clap::{Parser, Subcommand};
use load::command::{BenchCommand, Console, NfsCommand};

#[derive(Parser)]
struct Cli {
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Subcommand)]
enum Noun {
    Bench(Box<BenchCommand>),
    Nfs(NfsCommand),
}

fn main() {
    let cli = Cli::parse();
    let console = Console { progress: true };
    let outcome = match &cli.noun {
        Noun::Bench(command) => command.run(console),
        Noun::Nfs(command) => command.run(console),
    };
    match outcome {
        Ok(output) => {
            print!("{}", if cli.json { output.json + "\n" } else { output.text });
            std::process::exit((!output.ok).into());
        }
        Err(failure) => {
            eprintln!("error: {failure}\n  try:  {}", failure.advice());
            std::process::exit(failure.exit_code().into());
        }
    }
}
