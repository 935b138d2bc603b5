//! Asking before a severe step: the name of what it destroys, typed or given.

use std::io::{BufRead, IsTerminal, Write};

use control::{Problem, codes};

use crate::cli::Global;

/// Returns when `name` was confirmed. `effect` says what will be gone.
pub fn confirmed(global: &Global, name: &str, effect: &str) -> Result<(), Problem> {
    let given = match &global.confirm {
        Some(given) => given.clone(),
        None if global.no_input || global.json || !std::io::stdin().is_terminal() => {
            return Err(Problem::new(&codes::CONFIRMATION_MISSING, format!("\"{name}\" is not confirmed"))
                .why(effect)
                .step(format!("add --confirm={name}")));
        }
        None => ask(name, effect),
    };
    if given == name {
        return Ok(());
    }
    Err(Problem::new(&codes::CONFIRMATION_MISSING, format!("{given:?} was confirmed, not {name:?}")).why(effect))
}

fn ask(name: &str, effect: &str) -> String {
    let mut asked = std::io::stderr();
    // Without a terminal to read the question nobody can answer it either.
    let _ = write!(asked, "{effect}\nType {name} to go on: ").and_then(|()| asked.flush());
    let mut line = String::new();
    let _ = std::io::stdin().lock().read_line(&mut line);
    line.trim().to_owned()
}
