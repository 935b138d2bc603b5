//! `man`: manual pages made from the command line's own definitions, so they cannot say
//! anything else.

use clap::CommandFactory;
use control::{Exit, Problem, codes};

use crate::cli::Cli;
use crate::say::Say;

/// Prints the page of a command, for `man -l -` or a file.
pub fn run(words: &[String], say: &Say) -> Result<Exit, Problem> {
    let mut command = Cli::command();
    command.build();
    let mut name = "vmhold".to_owned();
    let mut found = &command;
    for word in words {
        let known: Vec<&str> = found.get_subcommands().map(clap::Command::get_name).collect();
        found = found.find_subcommand(word).ok_or_else(|| {
            Problem::new(&codes::NOT_FOUND, format!("{name} has no command {word:?}"))
                .step(format!("one of: {}", known.join(", ")))
        })?;
        name = format!("{name}-{word}");
    }
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(found.clone()).title(name).render(&mut page);
    rendered.map_err(|why| Problem::new(&codes::BUG, "the page cannot be made").why(why.to_string()))?;
    say.raw(&page);
    Ok(Exit::Success)
}
