//! What a process costs, read from outside: CPU time, memory, descriptors.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// CPU use below which a process counts as idle: 2 ticks of 10 ms in `IDLE_FOR`.
const IDLE_TICKS: u64 = 2;
const IDLE_FOR: Duration = Duration::from_secs(2);

/// A process by its id.
#[derive(Clone, Copy)]
pub struct Usage(pub u32);

impl Usage {
    /// User and system time that the process has used, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        Ok(self.cpu_ticks()? as f64 / 100.0)
    }

    fn cpu_ticks(&self) -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).context("reading the process's CPU time")?;
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // Fields 14 and 15 of proc(5), counted behind the name.
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    }

    /// Resident memory now and at its highest, in bytes.
    pub fn memory_bytes(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).context("reading the process's memory")?;
        let field = |name: &str| -> u64 {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_default();
            line.split_whitespace()
                .next()
                .and_then(|kib| kib.parse::<u64>().ok())
                .unwrap_or_default()
                * 1024
        };
        Ok((field("VmRSS:"), field("VmHWM:")))
    }

    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.0))?.count())
    }

    /// Waits until the process rests.
    pub async fn idle(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let mut ticks = self.cpu_ticks()?;
        loop {
            tokio::time::sleep(IDLE_FOR).await;
            let now = self.cpu_ticks()?;
            if now - ticks <= IDLE_TICKS {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "still busy after {within:?}");
            ticks = now;
        }
    }
}
