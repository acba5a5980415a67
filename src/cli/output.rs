//! Where results go: stdout as a table or as JSON lines; remarks and progress to stderr.

use std::{
    fmt,
    io::{self, ErrorKind, IsTerminal, Write},
    sync::{Mutex, PoisonError},
};

use clap::ValueEnum;
use comfy_table::{Table, presets};

use super::{
    cell::{Fields, Record, printable},
    failure::{Failure, Outcome},
};

/// How results are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// One JSON object a line, with stable field names.
    Json,
}

/// Where a command writes.
pub struct Output {
    format: Format,
    quiet: bool,
    to_terminal: bool,
    remarks_to_terminal: bool,
    sink: Mutex<Box<dyn Write + Send>>,
}

impl Output {
    /// Writes to this process's stdout and stderr.
    #[must_use]
    pub fn standard(format: Format, quiet: bool) -> Self {
        Self {
            format,
            quiet,
            to_terminal: io::stdout().is_terminal(),
            remarks_to_terminal: io::stderr().is_terminal(),
            sink: Mutex::new(Box::new(io::stdout())),
        }
    }

    /// How results are written.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether stdout is a terminal, where a secret would stay readable.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.to_terminal
    }

    /// Whether results may be coloured: for people, on a terminal that has not asked otherwise.
    #[must_use]
    pub fn is_coloured(&self) -> bool {
        self.to_terminal && self.format == Format::Table && std::env::var_os("NO_COLOR").is_none()
    }

    /// Writes a list.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub fn list<R: Record>(&self, records: &[R]) -> Outcome {
        match self.format {
            Format::Json => records.iter().try_for_each(|record| self.line(&record.fields().json())),
            Format::Table if records.is_empty() => {
                self.remark("none");
                Ok(())
            }
            Format::Table => self.line(&table(records)),
        }
    }

    /// Writes one record: its fields below each other, or one JSON line.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub fn one(&self, fields: &Fields) -> Outcome {
        match self.format {
            Format::Json => self.line(&fields.json()),
            Format::Table => self.line(&detail(fields)),
        }
    }

    /// Writes one line of text as it is; it must come from this program or be made `printable`.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub fn line(&self, text: &str) -> Outcome {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let written = sink.write_all(text.as_bytes()).and_then(|()| sink.write_all(b"\n")).and_then(|()| sink.flush());
        written.map_err(closed_or)
    }

    /// Writes bytes as they are, without a line end: a secret is exactly what it is.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub fn raw(&self, bytes: &[u8]) -> Outcome {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        sink.write_all(bytes).and_then(|()| sink.flush()).map_err(closed_or)
    }

    /// Tells people something, unless they asked for quiet. Never on stdout.
    pub fn remark(&self, text: &str) {
        if !self.quiet {
            // Nothing can be told where stderr is closed.
            let _ = writeln!(io::stderr(), "{}", printable(text));
        }
    }

    /// Shows how far long work is, over the line before; only on a terminal.
    pub fn progress(&self, text: &str) {
        if self.remarks_to_terminal && !self.quiet {
            let _ = write!(io::stderr(), "\r\x1b[K{}", printable(text));
        }
    }

    /// Clears the progress line.
    pub fn progress_done(&self) {
        self.progress("");
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("format", &self.format).field("quiet", &self.quiet).finish_non_exhaustive()
    }
}

fn closed_or(error: io::Error) -> Failure {
    if error.kind() == ErrorKind::BrokenPipe { Failure::StdoutClosed } else { Failure::io("write to stdout", error) }
}

/// Aligned columns without borders.
#[must_use]
pub fn table<R: Record>(records: &[R]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(R::COLUMNS.iter().map(|(heading, _)| *heading));
    for record in records {
        let fields = record.fields();
        table.add_row(R::COLUMNS.iter().map(|(_, name)| fields.cell(name)));
    }
    flush_left(&table)
}

fn detail(fields: &Fields) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for (name, cell) in fields.spread() {
        table.add_row([name, cell]);
    }
    flush_left(&table)
}

/// Without the padding that a border would need, so that lines can be cut and compared.
fn flush_left(table: &Table) -> String {
    let lines: Vec<_> =
        table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
pub mod captured {
    //! An output that tests can read.

    use std::sync::Arc;

    use super::*;

    /// What was written so far. Clones share it.
    #[derive(Clone, Debug, Default)]
    pub struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        /// As text.
        pub fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("unpoisoned").clone()).expect("UTF-8")
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("unpoisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output {
        /// Writes into `sink`, as if it were a pipe or a terminal.
        pub fn captured(format: Format, to_terminal: bool, sink: impl Write + Send + 'static) -> Self {
            Self { format, quiet: true, to_terminal, remarks_to_terminal: false, sink: Mutex::new(Box::new(sink)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{captured::Written, *};

    struct Row(&'static str, u32);

    impl Record for Row {
        const COLUMNS: &'static [(&'static str, &'static str)] = &[("NAME", "name"), ("LEASES", "leases")];

        fn fields(&self) -> Fields {
            Fields::new().text("name", self.0).number("leases", self.1)
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_table_has_no_borders_and_starts_at_the_margin() {
        let text = table(&[Row("acme", 3), Row("longer-name", 12)]);
        assert_eq!(text, "NAME         LEASES\nacme         3\nlonger-name  12");
    }

    #[test]
    fn a_list_in_json_is_one_object_a_line() {
        let written = Written::default();
        let output = Output::captured(Format::Json, false, written.clone());
        output.list(&[Row("acme", 3), Row("", 0)]).expect("written");
        assert_eq!(written.text(), "{\"name\":\"acme\",\"leases\":3}\n{\"name\":null,\"leases\":0}\n");
    }

    #[test]
    fn a_closed_stdout_is_not_an_error() {
        let failure = Output::captured(Format::Json, false, Closed).line("x").expect_err("closed");
        assert_eq!(failure.exit().number(), 0);
    }
}
