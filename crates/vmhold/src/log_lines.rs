//! Log lines: `ts level site area code ... msg`, logfmt on a terminal and JSON elsewhere.

use std::fmt;
use std::io::IsTerminal;

use jiff::Timestamp;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Starts the log on standard error.
pub fn start(site: &str) {
    let level = EnvFilter::try_from_env("VMHOLD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = Lines { site: site.to_owned(), json: !std::io::stderr().is_terminal() };
    // A second start changes nothing: the first one holds.
    let _ =
        tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).event_format(lines).try_init();
}

struct Lines {
    site: String,
    json: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        let meta = event.metadata();
        let area = meta.target().split("::").next().unwrap_or_default();
        let mut line: Vec<(String, Value)> = vec![
            ("ts".into(), Timestamp::now().to_string().into()),
            ("level".into(), meta.level().as_str().to_lowercase().into()),
            ("site".into(), self.site.clone().into()),
            ("area".into(), area.into()),
        ];
        line.extend(said.fields);
        line.push(("msg".into(), said.message.into()));
        if self.json {
            let pairs: Vec<String> =
                line.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str()))).collect();
            return writeln!(out, "{{{}}}", pairs.join(","));
        }
        let pairs: Vec<String> = line.iter().map(|(key, value)| format!("{key}={}", logfmt(value))).collect();
        writeln!(out, "{}", pairs.join(" "))
    }
}

/// Bare words stay bare; everything else is quoted as in JSON, so a line stays a line.
fn logfmt(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && text.bytes().all(is_bare) => text.clone(),
        other => other.to_string(),
    }
}

const fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\')
}

#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(String, Value)>,
}

impl Said {
    fn put(&mut self, field: &Field, value: Value) {
        self.fields.push((field.name().to_owned(), value));
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.put(field, text.into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn line(json: bool) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(Lines { site: "a".into(), json })
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(code = "VH1021", drives = 2, "drive is \"gone\"\nnow");
        });
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_is_a_line_and_says_where_and_what() {
        let text = line(false);
        assert!(
            text.contains(r#"level=error site=a area=vmhold code=VH1021 drives=2 msg="drive is \"gone\"\nnow""#),
            "{text}"
        );
        let json: Value = serde_json::from_str(&line(true)).unwrap();
        assert_eq!((json["code"].as_str(), json["msg"].as_str()), (Some("VH1021"), Some("drive is \"gone\"\nnow")));
        assert_eq!(text.lines().count(), 1);
    }
}
