//! `man`: manual pages made from the command line's own definitions, so they cannot say
//! anything else.

use std::path::Path;

use clap::{Command, CommandFactory};
use control::{Exit, Problem, codes};

use crate::cli::Cli;
use crate::place::unusable;
use crate::say::Say;

/// Prints the page of a command, for `man -l -` or a file; or writes all pages into a folder.
pub fn run(words: &[String], into: Option<&Path>, say: &Say) -> Result<Exit, Problem> {
    let mut command = Cli::command();
    command.build();
    if let Some(folder) = into {
        std::fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))?;
        write_all(&command, "vmhold", folder)?;
        return Ok(Exit::Success);
    }
    let mut name = "vmhold".to_owned();
    let mut found = &command;
    for word in words {
        let known: Vec<&str> = found.get_subcommands().map(Command::get_name).collect();
        found = found.find_subcommand(word).ok_or_else(|| {
            Problem::new(&codes::NOT_FOUND, format!("{name} has no command {word:?}"))
                .step(format!("one of: {}", known.join(", ")))
        })?;
        name = format!("{name}-{word}");
    }
    say.raw(&page(found, &name)?);
    Ok(Exit::Success)
}

fn page(command: &Command, name: &str) -> Result<Vec<u8>, Problem> {
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(command.clone()).title(name).render(&mut page);
    rendered.map_err(|why| Problem::new(&codes::BUG, "the page cannot be made").why(why.to_string()))?;
    Ok(page)
}

/// `vmhold-pool-create.1` and all others; `help` repeats what the pages say.
fn write_all(command: &Command, name: &str, folder: &Path) -> Result<(), Problem> {
    let file = folder.join(format!("{name}.1"));
    std::fs::write(&file, page(command, name)?).map_err(|error| unusable(&file, &error))?;
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        write_all(below, &format!("{name}-{}", below.get_name()), folder)?;
    }
    Ok(())
}
