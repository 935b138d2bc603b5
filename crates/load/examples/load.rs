//! The commands of this crate as a program of their own.

#![allow(missing_docs, reason = "a thin wrapper")]

use clap::Parser;
use load::command::{BenchAction, BenchCommand, Console};

#[derive(Parser)]
struct Cli {
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    bench: BenchCommand,
}

fn main() {
    let cli = Cli::parse();
    let console = Console { json: cli.json, progress: true };
    let outcome = match (&cli.bench.action, &cli.bench.load) {
        (Some(BenchAction::Verify(arguments)), _) => {
            load::verify::run(arguments, console).map(|report| (report.ok, report.json(), report.text()))
        }
        (None, arguments) => {
            load::bench::run(arguments, console).map(|report| (report.ok, report.json(), report.text()))
        }
    };
    match outcome {
        Ok((ok, json, text)) => {
            print!("{}", if cli.json { json + "\n" } else { text });
            std::process::exit((!ok).into());
        }
        Err(failure) => {
            eprintln!("error: {failure}\n  try:  {}", failure.advice());
            std::process::exit(failure.exit_code().into());
        }
    }
}
