//! The one registry of `VHxxxx` codes: the source of `explain`, of the API's `code`, of
//! log lines, health findings and runbook pages. A code is never removed or reused.
//!
//! Ranges: 1xxx pool and drives, 2xxx datastores and NFS, 3xxx VMs, 4xxx sites, 5xxx
//! hosts, 6xxx disaster recovery, 7xxx API and input, 8xxx jobs, configuration and the
//! demo, 9xxx internal.

/// Writes codes down: one block each, and the list of all blocks in a file.
macro_rules! codes {
    ($($number:literal $name:ident $severity:ident, exit $exit:ident, http $http:literal, since $since:literal {
        what: $what:literal,
        why: $why:literal,
        act: [$($act:literal),+ $(,)?],
        urgency: $urgency:literal,
        clears: $clears:literal,
        parameters: [$($parameter:literal),*],
    })+) => {
        $(
            #[doc = $what]
            pub static $name: crate::codes::Code = crate::codes::Code {
                number: $number,
                name: stringify!($name),
                severity: crate::codes::Severity::$severity,
                what: $what,
                why: $why,
                act: &[$($act),+],
                urgency: $urgency,
                clears_when: $clears,
                parameters: &[$($parameter),*],
                since: $since,
                exit: crate::exit::Exit::$exit,
                http: $http,
            };
        )+
        pub(super) static ALL: &[&crate::codes::Code] = &[$(&$name),+];
    };
}

mod command;
mod datastore;
mod host;
mod pool;
mod site;
mod vm;

use std::fmt;

use crate::exit::Exit;

pub use command::*;
pub use datastore::*;
pub use host::*;
pub use pool::*;
pub use site::*;
pub use vm::*;

/// How bad a condition is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// State changed; nobody needs to act.
    Info,
    /// Someone may have to act.
    Warning,
    /// Someone must act.
    Error,
}

impl Severity {
    /// The word in texts and logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One entry of the registry.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// The number behind `VH`.
    pub number: u16,
    /// Its name, as in `DRIVE_FAILED`.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What happened, one sentence.
    pub what: &'static str,
    /// What usually causes it and what it means for the data.
    pub why: &'static str,
    /// What to do, most useful first; commands can be pasted.
    pub act: &'static [&'static str],
    /// How soon.
    pub urgency: &'static str,
    /// When the condition ends.
    pub clears_when: &'static str,
    /// Names of the values its messages carry.
    pub parameters: &'static [&'static str],
    /// First version that knows it.
    pub since: &'static str,
    /// How a command ends that was stopped by it.
    pub exit: Exit,
    /// HTTP status of an API answer that carries it.
    pub http: u16,
}

impl Code {
    /// The part of the system a code belongs to, from its number.
    #[must_use]
    pub const fn area(&self) -> &'static str {
        match self.number / 1000 {
            1 => "pool and drives",
            2 => "datastores and NFS",
            3 => "VMs, snapshots, QoS",
            4 => "sites, replication, witness",
            5 => "host acceleration",
            6 => "disaster recovery",
            7 => "API and input",
            8 => "jobs, configuration, demo",
            _ => "internal",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VH{:04}", self.number)
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut map = serializer.serialize_struct("Code", 11)?;
        map.serialize_field("code", &self.to_string())?;
        map.serialize_field("name", self.name)?;
        map.serialize_field("area", self.area())?;
        map.serialize_field("severity", &self.severity)?;
        map.serialize_field("what", self.what)?;
        map.serialize_field("why", self.why)?;
        map.serialize_field("do", self.act)?;
        map.serialize_field("urgency", self.urgency)?;
        map.serialize_field("clears_when", self.clears_when)?;
        map.serialize_field("parameters", self.parameters)?;
        map.serialize_field("since", self.since)?;
        map.end()
    }
}

/// The document of `explain CODE`.
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[serde(transparent)]
pub struct CodePage(pub &'static Code);

impl schemars::JsonSchema for CodePage {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Code".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let severity = generator.subschema_for::<Severity>();
        schemars::json_schema!({
            "type": "object",
            "required": ["code", "name", "area", "severity", "what", "why", "do", "urgency", "clears_when", "since"],
            "properties": {
                "code": {"type": "string"}, "name": {"type": "string"}, "area": {"type": "string"},
                "severity": severity, "what": {"type": "string"}, "why": {"type": "string"},
                "do": {"type": "array", "items": {"type": "string"}}, "urgency": {"type": "string"},
                "clears_when": {"type": "string"}, "parameters": {"type": "array", "items": {"type": "string"}},
                "since": {"type": "string"},
            },
        })
    }
}

impl crate::envelope::Document for CodePage {
    const SCHEMA: &'static str = "vmhold.code/v1";
}

/// Every code, in number order.
pub fn all() -> impl Iterator<Item = &'static Code> {
    [pool::ALL, datastore::ALL, vm::ALL, site::ALL, host::ALL, command::ALL].into_iter().flatten().copied()
}

/// Finds a code by `VH1021`, `vh1021`, `1021` or its name.
#[must_use]
pub fn find(text: &str) -> Option<&'static Code> {
    let wanted = text.trim().to_ascii_uppercase();
    let digits = wanted.strip_prefix("VH").unwrap_or(&wanted);
    let number: Option<u16> = digits.parse().ok();
    all().find(|code| Some(code.number) == number || code.name == wanted)
}

/// The page `explain` prints, at most 80 columns wide.
#[must_use]
pub fn explain(code: &Code) -> String {
    use crate::text::wrap;
    let mut page = format!("{code} {}   {}, {}\n\n", code.name, code.severity.word(), code.area());
    let mut part = |title: &str, text: &str| {
        page.push_str(title);
        page.push('\n');
        for line in wrap(text, 76) {
            page.push_str("  ");
            page.push_str(&line);
            page.push('\n');
        }
    };
    part("What happened", code.what);
    part("Why, and what it means", code.why);
    for (index, step) in code.act.iter().enumerate() {
        part(if index == 0 { "What to do" } else { "  or" }, step);
    }
    part("How soon", code.urgency);
    part("Ends", code.clears_when);
    if !code.parameters.is_empty() {
        part("Values in its messages", &code.parameters.join(", "));
    }
    page.push_str(&format!("Since version {}\n", code.since));
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_in_order() {
        let numbers: Vec<u16> = all().map(|code| code.number).collect();
        assert!(numbers.is_sorted_by(|left, right| left < right), "{numbers:?}");
        let mut names: Vec<&str> = all().map(|code| code.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_field_of_every_code_says_something() {
        for code in all() {
            let texts = [code.name, code.what, code.why, code.urgency, code.clears_when, code.since];
            assert!(texts.iter().all(|text| text.len() >= 3), "{code}");
            assert!(!code.act.is_empty() && code.act.iter().all(|step| step.len() > 3), "{code}");
            assert!(code.what.ends_with('.') && code.why.ends_with('.'), "{code}: sentences end with a full stop");
            let name_is_clean = code.name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
            assert!(name_is_clean, "{code}: {}", code.name);
        }
    }

    #[test]
    fn texts_blame_nobody_and_shout_at_nobody() {
        for code in all() {
            let text = [code.what, code.why, code.urgency, &code.act.join(" ")].join(" ").to_lowercase();
            for word in ["please", "!", "sorry", "illegal", "you must", "oops"] {
                assert!(!text.contains(word), "{code} says `{word}`");
            }
        }
    }

    #[test]
    fn numbers_stand_in_the_range_of_their_file() {
        assert!(pool::ALL.iter().all(|code| code.number / 1000 == 1));
        assert!(datastore::ALL.iter().all(|code| code.number / 1000 == 2));
        assert!(vm::ALL.iter().all(|code| code.number / 1000 == 3));
        assert!(site::ALL.iter().all(|code| code.number / 1000 == 4));
        assert!(host::ALL.iter().all(|code| code.number / 1000 == 5));
        assert!(command::ALL.iter().all(|code| (7..=9).contains(&(code.number / 1000))));
    }

    #[test]
    fn http_and_exit_agree_on_who_must_act() {
        for code in all() {
            let by_caller = matches!(code.exit, Exit::Usage | Exit::NotFound | Exit::NotAllowed | Exit::Refused);
            if by_caller {
                assert!((400..500).contains(&code.http), "{code}: exit {:?} with HTTP {}", code.exit, code.http);
            }
            assert!(code.http >= 400, "{code}");
        }
    }

    /// Codes are never removed: this list only grows.
    #[test]
    fn codes_of_earlier_versions_still_exist() {
        let since_0_1 = [
            1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1011, 1012, 1015, 1021, 1022, 1023, 1025, 1026, 1031, 1032,
            1033, 1041, 1051, 1052, 1053, 1054, 1055, 1056, 1061, 1071, 2001, 2002, 2003, 2021, 2031, 2041, 2042, 2043,
            2051, 5001, 5002, 5012, 5041, 5042, 5043, 5051, 7400, 7404, 7405, 7409, 7410, 7428, 7501, 7503, 7504, 8001,
            8002, 8003, 8004, 8005, 8006, 8007, 8008, 8009, 8041, 8042, 8051, 9001,
        ];
        for number in since_0_1 {
            assert!(all().any(|code| code.number == number), "VH{number}");
        }
    }

    /// The same for the codes that came with logins, roles, the audit log and the witness.
    #[test]
    fn codes_of_the_control_plane_still_exist() {
        for number in [4021, 4023, 4025, 4026, 4027, 4028, 7401, 7403, 7412, 7429, 8043, 8061, 8062] {
            assert!(all().any(|code| code.number == number), "VH{number}");
        }
    }

    #[test]
    fn a_code_is_found_by_number_and_name() {
        assert_eq!(find("VH1021"), Some(&DRIVE_FAILED));
        assert_eq!(find(" vh1021"), Some(&DRIVE_FAILED));
        assert_eq!(find("1021"), Some(&DRIVE_FAILED));
        assert_eq!(find("drive_failed"), Some(&DRIVE_FAILED));
        assert_eq!(find("VH0000"), None);
    }

    #[test]
    fn explain_fits_eighty_columns() {
        for code in all() {
            let page = explain(code);
            assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
            assert!(page.starts_with(&format!("{code} {}", code.name)));
        }
    }
}
