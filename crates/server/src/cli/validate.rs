//! `trackline validate`: every mistake and every warning of a configuration, each where it stands, without running anything.

use std::process::ExitCode;

use pipeline::config::{Problem, Problems};
use serde_json::json;

use super::{FOUND, NOT_FOUND, USAGE, print};
use crate::config::{Files, LoadError};
use crate::{check, tables};

/// Say what is wrong with a configuration, with line and column; exit code 0 if nothing is, 1 if something is, 2 if it cannot be read.
#[derive(clap::Args, Clone, Debug)]
pub struct ValidateArgs {
    #[command(flatten)]
    files: Files,
    /// Print JSON: `valid`, `mistakes` and `warnings`, each with file, line, column, message and hint
    #[arg(long)]
    json: bool,
}

/// What was found.
struct Report {
    mistakes: Option<Problems>,
    warnings: Option<Problems>,
    pipelines: usize,
}

impl ValidateArgs {
    pub fn run(self, earlier: Files) -> ExitCode {
        let report = match Report::of(&self.files.after(earlier)) {
            Ok(report) => report,
            Err(error) => {
                eprintln!("trackline: {error}");
                return ExitCode::from(USAGE);
            }
        };
        let output = if self.json { report.json() } else { report.text() };
        let code = if report.mistakes.is_some() { NOT_FOUND } else { FOUND };
        print(output.as_bytes(), code)
    }
}

impl Report {
    fn of(files: &Files) -> Result<Report, LoadError> {
        let config = match files.load(Vec::new()) {
            Ok(config) => config,
            Err(LoadError::Wrong(mistakes)) => {
                return Ok(Report {
                    mistakes: Some(mistakes),
                    warnings: None,
                    pipelines: 0,
                });
            }
            Err(error) => return Err(error),
        };
        let some = |list: Vec<Problem>| (!list.is_empty()).then(|| config.problems(list));
        Ok(match tables::plan(&config) {
            Err(mistakes) => Report {
                mistakes: Some(mistakes),
                warnings: some(config.warnings()),
                pipelines: 0,
            },
            Ok(plan) => {
                let (pipelines, warnings) = (plan.pipelines.len(), plan.warnings.list.clone());
                let doors = check::check_doors(plan, &config);
                Report {
                    mistakes: some(doors.mistakes),
                    warnings: some(warnings.into_iter().chain(doors.warnings).collect()),
                    pipelines,
                }
            }
        })
    }

    fn text(&self) -> String {
        let counted = |number: usize, what: &str| match number {
            0 => format!("no {what}s"),
            1 => format!("1 {what}"),
            _ => format!("{number} {what}s"),
        };
        let count = |problems: &Option<Problems>| problems.as_ref().map_or(0, |problems| problems.list.len());
        let mut text = String::new();
        for (what, problems) in [("mistake", &self.mistakes), ("warning", &self.warnings)] {
            if let Some(problems) = problems {
                text += &format!("{}\n\n{problems}\n", counted(problems.list.len(), what));
            }
        }
        let warnings = counted(count(&self.warnings), "warning");
        text + &match count(&self.mistakes) {
            0 => format!("valid: {}, {warnings}\n", counted(self.pipelines, "pipeline")),
            mistakes => format!("not valid: {}, {warnings}\n", counted(mistakes, "mistake")),
        }
    }

    fn json(&self) -> String {
        let told = |problems: &Option<Problems>| problems.as_ref().map(Problems::told).unwrap_or_default();
        let report = json!({
            "valid": self.mistakes.is_none(),
            "mistakes": told(&self.mistakes),
            "warnings": told(&self.warnings),
        });
        format!("{report:#}\n")
    }
}
