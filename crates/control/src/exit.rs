//! How a command ends: one meaning per number, the same for every command.

/// Exit codes of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or already in that state.
    Success = 0,
    /// Failed; the error code says why.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The named object does not exist.
    NotFound = 3,
    /// Login or another role is needed.
    NotAllowed = 4,
    /// Refused: a precondition does not hold, or something else is in the way.
    Refused = 5,
    /// Declined at the prompt, or confirmation missing.
    Declined = 6,
    /// Timed out while waiting; the work goes on.
    TimedOut = 7,
    /// The appliance cannot be reached.
    Unreachable = 8,
    /// Partly done; the output has the result for each object.
    Partly = 9,
    /// `health gate`: warnings are present.
    GateWarnings = 10,
    /// `health gate`: errors are present.
    GateErrors = 11,
    /// Interrupted by the user.
    Interrupted = 130,
}

impl Exit {
    /// The number the process ends with.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}
