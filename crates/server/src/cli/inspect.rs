//! `trackline journal` and `trackline store`: looks into a data directory, beside the process that owns it and without
//! changing anything.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use journal::{Check, Inspection};
use query::instant::{duration_text, now_unix_nano, rfc3339};
use store::Report;

use super::terminal::{Ink, Terminal, columns, pad, pad_left};
use super::tree::grouped;
use super::{FOUND, Failure, NOT_FOUND, UNREACHABLE, finish};

/// Problems listed one by one; a damaged disk has thousands.
const PROBLEMS_SHOWN: usize = 20;

/// Where the data lies.
#[derive(clap::Args, Clone, Debug)]
struct DataDir {
    /// The server's data directory
    #[arg(long, value_name = "DIR", default_value = "./trackline-data", global = true)]
    data_dir: PathBuf,
    /// The directory itself, where the configuration puts it outside of the data directory
    #[arg(long, value_name = "DIR", conflicts_with = "data_dir", global = true)]
    directory: Option<PathBuf>,
}

impl DataDir {
    fn of(&self, part: &str) -> PathBuf {
        self.directory.clone().unwrap_or_else(|| self.data_dir.join(part))
    }
}

/// Look into the journal: what was accepted, and who has read how far.
#[derive(clap::Args, Clone, Debug)]
pub struct JournalArgs {
    #[command(subcommand)]
    question: JournalQuestion,
    #[command(flatten)]
    at: DataDir,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(clap::Subcommand, Clone, Copy, Debug)]
enum JournalQuestion {
    /// Segments with their streams, records and times
    List,
    /// Readers and how far each is behind
    Lag,
    /// Read every byte and report damage (exit code 1 if there is some)
    Check,
}

/// Look into the store.
#[derive(clap::Args, Clone, Debug)]
pub struct StoreArgs {
    #[command(subcommand)]
    question: StoreQuestion,
    #[command(flatten)]
    at: DataDir,
}

#[derive(clap::Subcommand, Clone, Copy, Debug)]
enum StoreQuestion {
    /// Read the catalog, every page and index of every part and the lists of removed traces, and report damage (exit code 1 if there is some)
    Check,
}

impl JournalArgs {
    pub fn run(self) -> ExitCode {
        finish(self.answer(&Terminal::of_stdout()))
    }

    fn answer(&self, terminal: &Terminal) -> Result<(String, u8), Failure> {
        let directory = self.at.of("journal");
        let refused = |error: journal::InspectError| Failure {
            code: UNREACHABLE,
            text: error.to_string(),
        };
        if let JournalQuestion::Check = self.question {
            let check = journal::check(&directory).map_err(refused)?;
            let code = if check.is_good() { FOUND } else { NOT_FOUND };
            let text = if self.json {
                as_json(&check)?
            } else {
                draw_check(&check, terminal)
            };
            return Ok((text, code));
        }
        let inspection = journal::inspect(&directory).map_err(refused)?;
        let text = match self.question {
            _ if self.json => as_json(&inspection)?,
            JournalQuestion::Lag => draw_readers(&inspection, terminal, now_unix_nano()),
            _ => draw_segments(&inspection, terminal),
        };
        Ok((text, FOUND))
    }
}

impl StoreArgs {
    pub fn run(self) -> ExitCode {
        finish(self.answer(&Terminal::of_stdout()))
    }

    fn answer(&self, terminal: &Terminal) -> Result<(String, u8), Failure> {
        let StoreQuestion::Check = self.question;
        let directory = self.at.of("store");
        if !directory.is_dir() {
            let text = format!(
                "{} is no directory; name the data directory with --data-dir",
                directory.display()
            );
            return Err(Failure {
                code: UNREACHABLE,
                text,
            });
        }
        let report = store::check(&directory).map_err(|error| Failure {
            code: UNREACHABLE,
            text: error.to_string(),
        })?;
        let code = if report.problems.is_empty() { FOUND } else { NOT_FOUND };
        Ok((draw_report(&report, &directory, terminal), code))
    }
}

fn as_json(value: &impl serde::Serialize) -> Result<String, Failure> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(Failure {
            code: UNREACHABLE,
            text: format!("this cannot be written as JSON: {error}"),
        }),
    }
}

/// `12.3 MiB`.
fn bytes_text(bytes: u64) -> String {
    let (mut size, mut unit) = (bytes as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, next);
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{size:.1} {unit}")
    }
}

fn draw_head(inspection: &Inspection, terminal: &Terminal) -> String {
    let owner = match inspection.owner_pid {
        Some(pid) => format!("in use by process {pid}"),
        None if inspection.clean => "closed".to_owned(),
        None => "not closed by its last process; the next start recovers it".to_owned(),
    };
    format!(
        "{}  {} records, {} on disk, next number {}, {owner}\n",
        terminal.ink(Ink::Bold, &inspection.directory.display().to_string()),
        grouped(inspection.records),
        bytes_text(inspection.disk_bytes),
        grouped(inspection.next_seq),
    )
}

fn draw_segments(inspection: &Inspection, terminal: &Terminal) -> String {
    let mut out = draw_head(inspection, terminal);
    let mut rows = vec![["segment", "records", "bytes", "stream", "from", "to"].map(str::to_owned)];
    for segment in &inspection.segments {
        let state = if segment.sealed { "" } else { " (being written)" };
        let name = format!("{}{state}", segment.name);
        if segment.streams.is_empty() {
            let fault = segment.header_fault.clone().unwrap_or_default();
            rows.push([
                name,
                "0".into(),
                bytes_text(segment.data_bytes),
                fault,
                String::new(),
                String::new(),
            ]);
            continue;
        }
        for (i, stream) in segment.streams.iter().enumerate() {
            rows.push([
                if i == 0 { name.clone() } else { String::new() },
                grouped(stream.records),
                bytes_text(stream.bytes),
                terminal.clean(&stream.stream),
                rfc3339(stream.first_unix_nano, 0),
                rfc3339(stream.last_unix_nano, 0),
            ]);
        }
    }
    out.push_str(&table(&rows, &[1, 2], terminal));
    out
}

fn draw_readers(inspection: &Inspection, terminal: &Terminal, now: u64) -> String {
    let mut out = draw_head(inspection, terminal);
    let header = [
        "reader", "stream", "behind", "bytes", "oldest", "skipped", "lost", "note",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    for reader in &inspection.readers {
        let age = reader
            .oldest_unix_nano
            .map(|oldest| duration_text(now.saturating_sub(oldest)));
        let orphan = reader
            .orphan_since_unix_nano
            .map(|since| format!("nobody's since {}", rfc3339(since, 0)));
        rows.push([
            terminal.clean(&reader.name),
            terminal.clean(&reader.stream),
            grouped(reader.lag_records),
            bytes_text(reader.lag_bytes),
            age.unwrap_or_else(|| "-".to_owned()),
            grouped(reader.skipped_records),
            grouped(reader.lost_records),
            orphan.unwrap_or_default(),
        ]);
    }
    out.push_str(&table(&rows, &[2, 3, 4, 5, 6], terminal));
    if let Some(fault) = &inspection.cursors_fault {
        out.push_str(&terminal.ink(Ink::Error, &format!("the readers' positions are damaged: {fault}\n")));
    }
    out
}

fn draw_check(check: &Check, terminal: &Terminal) -> String {
    let mut out = format!(
        "{}  {} segments, {} records, {} read\n",
        terminal.ink(Ink::Bold, &check.directory.display().to_string()),
        grouped(check.segments),
        grouped(check.records),
        bytes_text(check.bytes),
    );
    if check.torn_bytes > 0 {
        out.push_str(&format!(
            "a write of {} did not finish or is under way; that is no damage\n",
            bytes_text(check.torn_bytes)
        ));
    }
    for damage in check.damage.iter().take(PROBLEMS_SHOWN) {
        let lost = if damage.acknowledged {
            "acknowledged records"
        } else {
            "records, perhaps never acknowledged"
        };
        let text = format!(
            "{} at byte {}: {} unreadable, {} {lost}\n",
            damage.segment,
            damage.offset,
            bytes_text(damage.bytes),
            grouped(damage.lost_records)
        );
        out.push_str(&terminal.ink(Ink::Error, &text));
    }
    if check.damage_count > PROBLEMS_SHOWN as u64 {
        out.push_str(&format!(
            "and {} more damaged places\n",
            grouped(check.damage_count - PROBLEMS_SHOWN as u64)
        ));
    }
    if let Some(fault) = &check.cursors_fault {
        out.push_str(&terminal.ink(Ink::Error, &format!("the readers' positions are damaged: {fault}\n")));
    }
    out.push_str(&if check.is_good() {
        terminal.ink(Ink::Good, "no damage") + "\n"
    } else {
        terminal.ink(Ink::Error, &format!("{} records are lost", grouped(check.lost_records))) + "\n"
    });
    out
}

fn draw_report(report: &Report, directory: &Path, terminal: &Terminal) -> String {
    let mut out = format!(
        "{}  {} parts, {} rows, {}, {} lists of removed traces\n",
        terminal.ink(Ink::Bold, &directory.display().to_string()),
        grouped(report.parts),
        grouped(report.rows),
        bytes_text(report.bytes),
        grouped(report.removed_lists),
    );
    for problem in report.problems.iter().take(PROBLEMS_SHOWN) {
        let text = format!("{}: {}\n", problem.path.display(), terminal.clean(&problem.what));
        out.push_str(&terminal.ink(Ink::Error, &text));
    }
    if report.problems.len() > PROBLEMS_SHOWN {
        out.push_str(&format!(
            "and {} more problems\n",
            report.problems.len() - PROBLEMS_SHOWN
        ));
    }
    if !report.strays.is_empty() {
        out.push_str(&format!(
            "{} files that no commit names; harmless, the next start removes them\n",
            report.strays.len()
        ));
    }
    if !report.aside.is_empty() {
        out.push_str(&format!(
            "{} files that earlier starts found damaged or could not attribute and have kept aside; nothing reads them:\n",
            report.aside.len()
        ));
        for path in report.aside.iter().take(PROBLEMS_SHOWN) {
            out.push_str(&format!("  {}\n", path.display()));
        }
    }
    out.push_str(&match report.problems.len() {
        0 => terminal.ink(Ink::Good, "no damage") + "\n",
        n => terminal.ink(Ink::Error, &format!("{n} problems")) + "\n",
    });
    out
}

/// Rows under a header, in columns as wide as their widest cell; `right` are aligned right.
fn table<const N: usize>(rows: &[[String; N]], right: &[usize], terminal: &Terminal) -> String {
    let widths: Vec<usize> = (0..N)
        .map(|i| rows.iter().map(|row| columns(&row[i])).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(i, cell)| {
                if right.contains(&i) {
                    pad_left(cell, widths[i])
                } else {
                    pad(cell, widths[i])
                }
            })
            .collect();
        let line = cells.join("  ");
        out.push_str(&terminal.ink(if number == 0 { Ink::Faint } else { Ink::Plain }, line.trim_end()));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use journal::{Journal, OnFull, ReaderOptions, RealDisk, Record, Start};

    use super::*;

    const PLAIN: Terminal = Terminal {
        columns: 120,
        colour: false,
        unicode: true,
    };

    fn ask(directory: &Path, question: JournalQuestion) -> Result<(String, u8), Failure> {
        let at = DataDir {
            data_dir: directory.to_owned(),
            directory: None,
        };
        JournalArgs {
            question,
            at,
            json: false,
        }
        .answer(&PLAIN)
    }

    #[test]
    fn a_journal_is_listed_checked_and_its_damage_found() {
        let data = tempfile::tempdir().unwrap();
        let settings = journal::Settings::new(data.path().join("journal"));
        let (journal, _) = Journal::open(settings, Arc::new(RealDisk)).unwrap();
        let options = ReaderOptions {
            stream: "traces".into(),
            on_full: OnFull::Refuse,
            start: Start::Head,
        };
        let _reader = journal.reader("store", options).unwrap();
        let (done, wait) = mpsc::channel();
        let record = Record {
            stream: "traces".into(),
            header: "h".into(),
            payload: vec![7; 5_000].into(),
        };
        journal.append(record, move |outcome| done.send(outcome.is_ok()).unwrap());
        assert!(wait.recv().unwrap());
        journal.close();

        let (listed, code) = ask(data.path(), JournalQuestion::List).unwrap();
        assert!(listed.contains("1 records") && listed.contains("traces"), "{listed}");
        let (lag, _) = ask(data.path(), JournalQuestion::Lag).unwrap();
        assert!(
            lag.lines()
                .any(|line| line.starts_with("store") && line.contains("traces")),
            "{lag}"
        );
        let (checked, good) = ask(data.path(), JournalQuestion::Check).unwrap();
        assert!(checked.ends_with("no damage\n"), "{checked}");
        assert_eq!((code, good), (FOUND, FOUND));

        let segment = std::fs::read_dir(data.path().join("journal"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .max_by_key(|path| std::fs::metadata(path).unwrap().len())
            .unwrap();
        let mut bytes = std::fs::read(&segment).unwrap();
        let at = bytes.windows(64).position(|window| window == [7; 64]).unwrap();
        bytes[at + 10] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
        let (checked, code) = ask(data.path(), JournalQuestion::Check).unwrap();
        assert_eq!(code, NOT_FOUND, "{checked}");
    }

    #[test]
    fn a_directory_without_a_journal_or_store_says_so() {
        let empty = tempfile::tempdir().unwrap();
        let failure = ask(empty.path(), JournalQuestion::List).unwrap_err();
        assert!(
            failure.text.contains("no journal") || failure.text.contains("cannot read"),
            "{}",
            failure.text
        );
        let at = DataDir {
            data_dir: empty.path().to_owned(),
            directory: None,
        };
        let failure = StoreArgs {
            question: StoreQuestion::Check,
            at,
        }
        .answer(&PLAIN)
        .unwrap_err();
        assert!(failure.text.contains("--data-dir"), "{}", failure.text);
    }

    #[test]
    fn a_store_is_checked() {
        let data = tempfile::tempdir().unwrap();
        let (writer, _reader) = store::Store::open(data.path().join("store"), store::Settings::default()).unwrap();
        writer.close().unwrap();
        let at = DataDir {
            data_dir: data.path().to_owned(),
            directory: None,
        };
        let (text, code) = StoreArgs {
            question: StoreQuestion::Check,
            at,
        }
        .answer(&PLAIN)
        .unwrap();
        assert!(text.contains("0 parts") && text.ends_with("no damage\n"), "{text}");
        assert_eq!(code, FOUND);
    }

    #[test]
    fn sizes_are_shown_in_binary_units() {
        assert_eq!(
            [0, 1023, 1536, 5 << 30].map(bytes_text),
            ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
        );
    }
}
