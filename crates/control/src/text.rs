//! Plain text for terminals: wrapping, units, tables, bars. Nothing wraps in a table:
//! columns fall off at the right and a last line says how many.

/// Breaks text at spaces so that no line is longer than `width` characters; a longer
/// word (a command, a path) stays whole.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Bytes with a binary unit and three significant digits: `1.31 GiB`, `512 B`.
#[must_use]
pub fn bytes(count_bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = count_bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 { 0 } else { usize::from(value < 9.995) + 1 };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A count with thousands apart: `1,000,000`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Seconds as people say them: `5 s`, `22 min`, `3 h`, `6 d`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// `[######..............]` for a share from 0 to 1. Full only at 1, empty only at 0.
#[must_use]
pub fn bar(share: f64, width: usize) -> String {
    let clamped = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let mut filled = (clamped * width as f64) as usize;
    if clamped > 0.0 && filled == 0 {
        filled = 1;
    }
    format!("[{}{}]", "#".repeat(filled), ".".repeat(width - filled.min(width)))
}

/// Unknown is `-`, never 0.
#[must_use]
pub fn or_dash<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

/// A column of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Heading, in capitals.
    pub title: &'static str,
    /// Numbers stand at the right.
    pub right: bool,
}

/// A left-aligned column.
#[must_use]
pub const fn left(title: &'static str) -> Column {
    Column { title, right: false }
}

/// A right-aligned column.
#[must_use]
pub const fn right(title: &'static str) -> Column {
    Column { title, right: true }
}

/// A name as one word of a command that is shown: it may be pasted into a shell as it stands.
#[must_use]
pub fn shell_word(name: &str) -> String {
    // A name with a NUL fits no command line, so it does not matter how it is shown.
    shlex::try_quote(name).map_or_else(|_| name.to_owned(), Into::into)
}

/// `1 file`, `1,024 files`.
#[must_use]
pub fn files(number: u64) -> String {
    format!("{} {}", count(number), if number == 1 { "file" } else { "files" })
}

/// Drives by number, as in `drive 3` or `drives 1, 3`.
#[must_use]
pub fn drives(numbers: &[u32]) -> String {
    let listed: Vec<String> = numbers.iter().map(u32::to_string).collect();
    format!("{} {}", if numbers.len() == 1 { "drive" } else { "drives" }, listed.join(", "))
}

/// Rows under headings.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as there are columns.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "one cell per column");
        self.rows.push(cells);
    }

    /// The table within `width` characters.
    #[must_use]
    pub fn render(&self, width: usize) -> String {
        let widths: Vec<usize> = (0..self.columns.len()).map(|at| self.column_width(at)).collect();
        let mut shown = 0;
        let mut total = 0;
        for column_width in &widths {
            let needed = total + usize::from(shown > 0) * 2 + column_width;
            if shown > 0 && needed > width {
                break;
            }
            total = needed;
            shown += 1;
        }
        let titles: Vec<String> = self.columns.iter().map(|column| column.title.to_owned()).collect();
        let mut out = self.line(&titles, &widths[..shown]);
        for row in &self.rows {
            out.push_str(&self.line(row, &widths[..shown]));
        }
        let hidden = widths.len() - shown;
        if hidden > 0 {
            let plural = if hidden == 1 { "" } else { "s" };
            out.push_str(&format!("{hidden} column{plural} hidden: a wider terminal or --json shows all\n"));
        }
        out
    }

    fn column_width(&self, at: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(self.columns[at].title.len())
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut out = String::new();
        for (at, width) in widths.iter().enumerate() {
            let cell = &cells[at];
            let gap = " ".repeat(width - cell.chars().count());
            if at > 0 {
                out.push_str("  ");
            }
            if self.columns[at].right {
                out.push_str(&gap);
                out.push_str(cell);
            } else {
                out.push_str(cell);
                out.push_str(&gap);
            }
        }
        format!("{}\n", out.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_three_digits_and_name_their_unit() {
        let shown: Vec<String> =
            [0, 512, 1023, 1024, 1500, 132 * 1024, 1 << 30, 20 << 30, u64::MAX].into_iter().map(bytes).collect();
        assert_eq!(
            shown,
            ["0 B", "512 B", "1.00 KiB", "1.00 KiB", "1.46 KiB", "132 KiB", "1.00 GiB", "20.0 GiB", "16.0 EiB"]
        );
    }

    #[test]
    fn counts_and_durations_read_well() {
        assert_eq!([count(7), count(1234), count(1_000_000)], ["7", "1,234", "1,000,000"]);
        assert_eq!([duration(0.25), duration(22.0 * 60.0), duration(86_400.0 * 6.0)], ["0.2 s", "22 min", "6 d"]);
    }

    #[test]
    fn a_bar_is_full_only_when_done() {
        assert_eq!(bar(0.0, 4), "[....]");
        assert_eq!(bar(0.001, 4), "[#...]");
        assert_eq!(bar(0.999, 4), "[###.]");
        assert_eq!(bar(1.0, 4), "[####]");
        assert_eq!(bar(f64::NAN, 4), "[....]");
    }

    #[test]
    fn names_in_commands_stay_one_word() {
        assert_eq!(shell_word("vm-100"), "vm-100");
        for name in ["erp system", "Büro 1", "it's", "a;b", "$HOME"] {
            assert_eq!(shlex::split(&shell_word(name)), Some(vec![name.to_owned()]), "{name}");
        }
    }

    #[test]
    fn a_table_drops_columns_from_the_right_and_says_so() {
        let mut table = Table::new(&[left("NAME"), right("SIZE"), left("WHY")]);
        table.row(vec!["a".into(), "10".into(), "because".into()]);
        table.row(vec!["long".into(), "1".into(), "-".into()]);
        assert_eq!(table.render(80), "NAME  SIZE  WHY\na       10  because\nlong     1  -\n");
        assert_eq!(
            table.render(12),
            "NAME  SIZE\na       10\nlong     1\n1 column hidden: a wider terminal or --json shows all\n"
        );
    }
}
