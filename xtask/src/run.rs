//! Running other programs, with what is run printed before it runs.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// A program call being put together.
pub struct Call {
    command: Command,
    shown: String,
}

impl Call {
    /// `program` in the folder `dir`, without standard input.
    pub fn new(program: &str, dir: &Path) -> Self {
        let mut command = Command::new(program);
        command.current_dir(dir).stdin(Stdio::null());
        Self { command, shown: program.to_owned() }
    }

    /// The cargo this command was started by.
    pub fn cargo(dir: &Path) -> Self {
        let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut call = Self::new(&program, dir);
        call.shown = "cargo".to_owned();
        call
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I, S>(mut self, arguments: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        for argument in arguments {
            self.shown.push(' ');
            self.shown.push_str(&argument.as_ref().to_string_lossy());
            self.command.arg(argument);
        }
        self
    }

    /// Sets a variable in the program's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.shown = format!("{name}={value} {}", self.shown);
        self.command.env(name, value);
        self
    }

    /// The call as a person would type it.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Runs with output passed through; an unsuccessful end is an error.
    pub fn run(mut self) -> Result<(), String> {
        println!("$ {}", self.shown);
        let status = self.command.status().map_err(|why| format!("cannot start `{}`: {why}", self.shown))?;
        if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", self.shown)) }
    }

    /// Runs and returns standard output; standard error passes through.
    pub fn output(mut self) -> Result<String, String> {
        let output = self
            .command
            .stderr(Stdio::inherit())
            .output()
            .map_err(|why| format!("cannot start `{}`: {why}", self.shown))?;
        if !output.status.success() {
            return Err(format!("`{}` ended with {}", self.shown, output.status));
        }
        String::from_utf8(output.stdout).map_err(|_| format!("`{}` printed bytes that are not UTF-8", self.shown))
    }

    /// Runs silently; exit code (`None`: ended by a signal), and all that it printed.
    pub fn captured(mut self) -> Result<(Option<i32>, String), String> {
        let output = self.command.output().map_err(|why| format!("cannot start `{}`: {why}", self.shown))?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// Whether the program exists and ends well, silently.
    pub fn works(mut self) -> bool {
        self.command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}
