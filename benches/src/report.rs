//! Prints results beside their targets and stores them with the machine they were measured on.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

/// The figures of one run, in the order in which they were measured.
#[derive(Default)]
pub struct Report {
    figures: Vec<(String, f64, &'static str, String)>,
}

impl Report {
    /// Adds a figure and prints it.
    pub fn add(&mut self, name: &str, value: f64, unit: &'static str, target: &str) {
        println!("{name:<44} {:>12} {unit:<16} {target}", pretty(value));
        self.figures.push((name.to_owned(), value, unit, target.to_owned()));
    }

    /// Writes `benches/results/{scenario}.json`.
    pub fn write(&self, scenario: &str, workload: &str) -> Result<()> {
        let mut figures = Map::new();
        for (name, value, unit, target) in &self.figures {
            figures.insert(name.clone(), json!({ "value": value, "unit": unit, "target": target }));
        }
        let report = json!({ "scenario": scenario, "workload": workload, "machine": machine(), "figures": figures });
        let folder = Path::new("benches/results");
        fs::create_dir_all(folder)?;
        fs::write(folder.join(format!("{scenario}.json")), format!("{:#}\n", report))?;
        Ok(())
    }
}

fn pretty(value: f64) -> String {
    if value >= 1000.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// Processor, cores, memory and kernel.
pub fn machine() -> Value {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "processor": model.trim_start_matches([' ', '\t', ':']),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_gib": kib / 1024 / 1024,
        "kernel": kernel.trim(),
    })
}
