//! What exporters sent this month, against what their backends take for the price: told before a bill or a refusal tells it.
//!
//! Bytes are those of OTLP before compression, which is what backends that are paid by volume count, within the difference that their own format makes.
//! The sums are kept in a file beside the journal's segments, written every few seconds: a crash costs the count of what was sent since, and what is
//! sent again after it counts again, as it does at the backend. Without a journal they begin anew with each start.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::Signal;
use model::instant::{NANOS_PER_SECOND, parse_rfc3339, rfc3339};
use pipeline::Ledger;
use pipeline::config::telemetry::UsageBudget;
use pipeline::ledger::Snapshot;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Pause between two looks at the books: the most that a crash costs.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// The largest file that is read back; ours have a hundred bytes for each exporter and signal.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Shares of a budget, in percent, at which the log says so, once each in a month.
const WARNED_PERCENTS: [u64; 2] = [80, 100];
/// What is counted in less than this says nothing of a month.
const SHORTEST_FOR_FORECAST_SECONDS: u64 = 3600;

/// The sums of a month. Clones are the same.
#[derive(Clone)]
pub struct Usage(Arc<Inner>);

struct Inner {
    budgets: Vec<UsageBudget>,
    path: Option<PathBuf>,
    counting: Mutex<Counting>,
}

struct Counting {
    month: Month,
    /// What the books said at the last look, which begin at zero with each start.
    seen: HashMap<(String, String), (u64, u64)>,
    /// By exporter, as of the last look, and the highest of [`WARNED_PERCENTS`] that the log has told since the start.
    series: HashMap<String, (u64, u64)>,
    is_saved: bool,
    /// The log has said that the disk does not take it.
    is_told: bool,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Month {
    /// `2026-11`, in UTC.
    month: String,
    /// When counting began in it.
    since_unix: u64,
    sent: Vec<Sent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sent {
    exporter: String,
    signal: String,
    bytes: u64,
    items: u64,
    /// The highest of [`WARNED_PERCENTS`] that the log has told.
    warned_percent: u64,
}

/// One exporter and signal, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    pub exporter: String,
    pub signal: String,
    pub month: String,
    pub bytes: u64,
    pub items: u64,
    /// What it will be at the month's end if it goes on like that; what it is, before an hour has been counted.
    pub forecast_bytes: u64,
    pub budget_bytes: Option<u64>,
    /// About how many series its backend was sent lately; 0 for one that keeps none.
    pub active_series: u64,
    pub budget_active_series: Option<u64>,
}

impl Usage {
    /// Goes on with the sums of the file, if they are of this month.
    pub fn open(path: Option<PathBuf>, budgets: Vec<UsageBudget>, now_unix: u64) -> Usage {
        let kept = path.as_deref().and_then(|path| match read(path) {
            Ok(kept) => kept,
            Err(why) => {
                tracing::warn!("{}: {why}; this month's usage is counted from now on", path.display());
                None
            }
        });
        let this = month_of(now_unix);
        let month = kept.filter(|kept| kept.month == this).unwrap_or(Month {
            month: this,
            since_unix: now_unix,
            sent: Vec::new(),
        });
        Usage(Arc::new(Inner {
            budgets,
            path,
            counting: Mutex::new(Counting {
                month,
                seen: HashMap::new(),
                series: HashMap::new(),
                is_saved: true,
                is_told: false,
            }),
        }))
    }

    /// Adds what the books have more than at the last look. What the log should say.
    pub fn note(&self, books: &Snapshot, now_unix: u64) -> Vec<String> {
        let mut sums: HashMap<(String, String), (u64, u64)> = HashMap::new();
        for reader in &books.readers {
            let sum = sums
                .entry((reader.exporter.clone(), reader.signal.to_owned()))
                .or_default();
            *sum = (sum.0 + reader.sent_bytes, sum.1 + reader.delivered);
        }
        let mut counting = self.counting();
        let Counting {
            month,
            seen,
            series,
            is_saved,
            ..
        } = &mut *counting;
        let this = month_of(now_unix);
        if month.month != this {
            *month = Month {
                month: this,
                since_unix: now_unix,
                sent: Vec::new(),
            };
            *is_saved = false;
        }
        for (key, (bytes, items)) in sums {
            let before = seen.insert(key.clone(), (bytes, items)).unwrap_or_default();
            // What stays here, as in the store, is nobody's usage.
            let (bytes, items) = (bytes.saturating_sub(before.0), items.saturating_sub(before.1));
            if bytes == 0 {
                continue;
            }
            *is_saved = false;
            let (exporter, signal) = key;
            let known = month
                .sent
                .iter_mut()
                .find(|it| it.exporter == exporter && it.signal == signal);
            match known {
                Some(sent) => {
                    sent.bytes += bytes;
                    sent.items += items;
                }
                None => month.sent.push(Sent {
                    exporter,
                    signal,
                    bytes,
                    items,
                    warned_percent: 0,
                }),
            }
        }
        let mut said = Vec::new();
        for reader in books.readers.iter().filter(|reader| reader.active_series > 0) {
            let (count, warned) = series.entry(reader.exporter.clone()).or_default();
            // Several pipelines may end in one exporter, which counts for all; the latest of them knows best.
            *count = reader.active_series;
            let Some(budget) = self.series_budget(&reader.exporter, reader.signal) else {
                continue;
            };
            let percent = u128::from(*count) * 100 / u128::from(budget.max(1));
            let passed = WARNED_PERCENTS.into_iter().rfind(|at| u128::from(*at) <= percent);
            if let Some(passed) = passed.filter(|passed| *passed > *warned) {
                *warned = passed;
                said.push(format!(
                    "the exporter `{}` keeps about {count} series active: {percent} % of its budget of {budget}",
                    reader.exporter
                ));
            }
        }
        for sent in &mut month.sent {
            let Some(budget) = self.budget(&sent.exporter, &sent.signal) else {
                continue;
            };
            let percent = u128::from(sent.bytes) * 100 / u128::from(budget.max(1));
            let passed = WARNED_PERCENTS.into_iter().rfind(|at| u128::from(*at) <= percent);
            if let Some(passed) = passed.filter(|passed| *passed > sent.warned_percent) {
                sent.warned_percent = passed;
                *is_saved = false;
                said.push(format!(
                    "the exporter `{}` has sent {} bytes of {} this month: {percent} % of its budget of {budget}",
                    sent.exporter, sent.bytes, sent.signal
                ));
            }
        }
        said
    }

    /// What was sent, and what it comes to.
    pub fn shown(&self, now_unix: u64) -> Vec<Shown> {
        let counting = self.counting();
        let month = &counting.month;
        let series_of = |exporter: &str, signal: &str| match signal == Signal::Metrics.as_str() {
            true => counting.series.get(exporter).map_or(0, |(count, _)| *count),
            false => 0,
        };
        let end = end_of(&month.month);
        let mut list: Vec<Shown> = month
            .sent
            .iter()
            .map(|sent| Shown {
                exporter: sent.exporter.clone(),
                signal: sent.signal.clone(),
                month: month.month.clone(),
                bytes: sent.bytes,
                items: sent.items,
                forecast_bytes: forecast(sent.bytes, month.since_unix, now_unix, end),
                budget_bytes: self.budget(&sent.exporter, &sent.signal),
                active_series: series_of(&sent.exporter, &sent.signal),
                budget_active_series: self.series_budget(&sent.exporter, &sent.signal),
            })
            .collect();
        // A budget of which nothing is used yet is there to be seen.
        for budget in &self.0.budgets {
            let signal = budget.signal.as_str();
            if !list
                .iter()
                .any(|it| it.exporter == budget.exporter && it.signal == signal)
            {
                list.push(Shown {
                    exporter: budget.exporter.clone(),
                    signal: signal.to_owned(),
                    month: month.month.clone(),
                    bytes: 0,
                    items: 0,
                    forecast_bytes: 0,
                    budget_bytes: Some(budget.bytes_per_month),
                    active_series: 0,
                    budget_active_series: self.series_budget(&budget.exporter, signal),
                });
            }
        }
        list.sort_by(|a, b| (&a.exporter, &a.signal).cmp(&(&b.exporter, &b.signal)));
        list
    }

    /// Looks at the books and keeps what they say.
    pub fn settle(&self, ledger: &Ledger, now_unix: u64) {
        for said in self.note(&ledger.snapshot(), now_unix) {
            tracing::warn!("{said}");
        }
        let Some(path) = self.0.path.as_deref() else { return };
        let month = {
            let counting = self.counting();
            if counting.is_saved {
                return;
            }
            counting.month.clone()
        };
        // Nobody who asks waits for the disk.
        let written = write(path, &month);
        let mut counting = self.counting();
        match written {
            Ok(()) => {
                counting.is_saved = counting.month == month;
                counting.is_told = false;
            }
            // It is tried again at the next look, and told once.
            Err(error) if !std::mem::replace(&mut counting.is_told, true) => {
                tracing::warn!("{}: this month's usage cannot be kept: {error}", path.display());
            }
            Err(_) => {}
        }
    }

    /// Until it is told to stop; whoever stops it settles once more.
    pub async fn run(self, ledger: Ledger, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stop.changed() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let (usage, ledger) = (self.clone(), ledger.clone());
            // It writes a file. A panic there has been told, and the next look counts what this one did not.
            let _ = tokio::task::spawn_blocking(move || usage.settle(&ledger, now_unix())).await;
        }
    }

    fn series_budget(&self, exporter: &str, signal: &str) -> Option<u64> {
        let fits = |it: &&UsageBudget| it.exporter == exporter && it.signal.as_str() == signal;
        let budget = self.0.budgets.iter().find(fits);
        budget
            .filter(|it| it.signal == Signal::Metrics)
            .map(|it| it.active_series)
    }

    fn budget(&self, exporter: &str, signal: &str) -> Option<u64> {
        let fits = |it: &&UsageBudget| it.exporter == exporter && it.signal.as_str() == signal;
        self.0.budgets.iter().find(fits).map(|it| it.bytes_per_month)
    }

    fn counting(&self) -> MutexGuard<'_, Counting> {
        self.0.counting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub fn now_unix() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn month_of(unix: u64) -> String {
    let mut text = rfc3339(unix.saturating_mul(NANOS_PER_SECOND), 0);
    text.truncate("2026-11".len());
    text
}

/// When the next month begins, in seconds since 1970.
fn end_of(month: &str) -> u64 {
    let parts = month.split_once('-');
    let Some((year, month)) =
        parts.and_then(|(year, month)| Some((year.parse::<u32>().ok()?, month.parse::<u32>().ok()?)))
    else {
        return 0;
    };
    let (year, month) = if month >= 12 { (year + 1, 1) } else { (year, month + 1) };
    parse_rfc3339(&format!("{year:04}-{month:02}-01T00:00:00Z")).map_or(0, |nanos| nanos / NANOS_PER_SECOND)
}

fn forecast(bytes: u64, since: u64, now: u64, end: u64) -> u64 {
    let counted = now.saturating_sub(since);
    if counted < SHORTEST_FOR_FORECAST_SECONDS {
        return bytes;
    }
    let rest = u128::from(bytes) * u128::from(end.saturating_sub(now)) / u128::from(counted);
    bytes.saturating_add(u64::try_from(rest).unwrap_or(u64::MAX))
}

fn read(path: &Path) -> Result<Option<Month>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| error.to_string())
}

/// Whole or not at all: beside it first, then in its place.
fn write(path: &Path, month: &Month) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec(month)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOVEMBER_10: u64 = 1_794_268_800;
    const DAY: u64 = 86_400;

    fn budgets() -> Vec<UsageBudget> {
        vec![UsageBudget {
            exporter: "loki".to_owned(),
            signal: Signal::Logs,
            bytes_per_month: 1000,
            active_series: 0,
        }]
    }

    fn bytes(usage: &Usage, now: u64) -> Vec<(String, u64, u64)> {
        let shown = usage.shown(now).into_iter();
        shown.map(|it| (it.exporter, it.bytes, it.forecast_bytes)).collect()
    }

    #[test]
    fn months_and_their_ends() {
        for (now, month, end) in [
            (NOVEMBER_10, "2026-11", "2026-12-01T00:00:00Z"),
            (NOVEMBER_10 + 30 * DAY, "2026-12", "2027-01-01T00:00:00Z"),
            (NOVEMBER_10 + 90 * DAY, "2027-02", "2027-03-01T00:00:00Z"),
        ] {
            assert_eq!(month_of(now), month);
            assert_eq!(rfc3339(end_of(month) * NANOS_PER_SECOND, 0), end);
        }
        assert_eq!(end_of("nonsense"), 0);
    }

    #[test]
    fn series_have_a_budget_of_their_own() {
        let (ledger, now) = (Ledger::new(), NOVEMBER_10);
        let budget = UsageBudget {
            exporter: "mimir".to_owned(),
            signal: Signal::Metrics,
            bytes_per_month: u64::MAX,
            active_series: 10_000,
        };
        let usage = Usage::open(None, vec![budget], now);
        let book = ledger.reader("metrics", "mimir", Signal::Metrics);
        book.sent(1);
        let mut said = Vec::new();
        for count in [100, 7_999, 8_000, 9_000, 10_001, 10_002] {
            book.active_series(count);
            said.extend(usage.note(&ledger.snapshot(), now));
        }
        assert_eq!(
            said,
            [
                "the exporter `mimir` keeps about 8000 series active: 80 % of its budget of 10000",
                "the exporter `mimir` keeps about 10001 series active: 100 % of its budget of 10000"
            ]
        );
        let shown = &usage.shown(now)[0];
        assert_eq!(
            (shown.active_series, shown.budget_active_series),
            (10_002, Some(10_000))
        );
    }

    #[test]
    fn the_log_tells_each_share_once_and_a_restart_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("usage.json");
        let ledger = Ledger::new();
        let usage = Usage::open(Some(path.clone()), budgets(), NOVEMBER_10);
        assert_eq!(
            bytes(&usage, NOVEMBER_10),
            [("loki".to_owned(), 0, 0)],
            "a budget that nobody used"
        );
        let send = |usage: &Usage, ledger: &Ledger, more: u64, now: u64| {
            ledger.reader("logs", "loki", Signal::Logs).sent(more);
            usage.note(&ledger.snapshot(), now).len()
        };
        assert_eq!(send(&usage, &ledger, 799, NOVEMBER_10), 0);
        assert_eq!(send(&usage, &ledger, 1, NOVEMBER_10), 1, "80 %");
        assert_eq!(send(&usage, &ledger, 100, NOVEMBER_10), 0);
        usage.settle(&Ledger::new(), NOVEMBER_10);

        // After a restart the books begin at zero, and the month goes on.
        let (usage, ledger) = (
            Usage::open(Some(path.clone()), budgets(), NOVEMBER_10 + DAY),
            Ledger::new(),
        );
        assert_eq!(send(&usage, &ledger, 50, NOVEMBER_10 + DAY), 0);
        assert_eq!(send(&usage, &ledger, 50, NOVEMBER_10 + DAY), 1, "100 %");
        assert_eq!(send(&usage, &ledger, 500, NOVEMBER_10 + DAY), 0);
        assert_eq!(bytes(&usage, NOVEMBER_10 + DAY)[0].1, 1500);

        // The next month begins at zero.
        let december = NOVEMBER_10 + 30 * DAY;
        assert_eq!(send(&usage, &ledger, 900, december), 1);
        assert_eq!(bytes(&usage, december)[0].1, 900);
        assert_eq!(
            Usage::open(Some(path.clone()), Vec::new(), december).shown(december),
            []
        );

        // What is damaged is begun anew.
        fs::write(&path, "{").expect("writes");
        assert_eq!(Usage::open(Some(path), Vec::new(), december).shown(december), []);
    }

    #[test]
    fn a_forecast_goes_on_at_the_rate_so_far() {
        let end = end_of("2026-11");
        assert_eq!(
            forecast(100, NOVEMBER_10, NOVEMBER_10 + 60, end),
            100,
            "too early to say"
        );
        // Ten days of 21 are over when 210 were sent in them.
        let (since, now) = (end - 21 * DAY, end - 11 * DAY);
        assert_eq!(forecast(210, since, now, end), 441);
        assert_eq!(forecast(210, since, end + DAY, end), 210);
        assert_eq!(forecast(u64::MAX, since, now, end), u64::MAX);
    }
}
