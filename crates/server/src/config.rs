//! Where the configuration comes from: the built-in one or files, what the command line lays over it, and the variables it refers to.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pipeline::config::{Config, Problems, Source, open_to_all};

/// What runs without a file: OTLP in, everything kept, UI and APIs on loopback.
pub const BUILT_IN: &str = include_str!("built-in.yaml");

/// Which files, and what is laid over them.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(id = "configuration")]
pub struct Files {
    /// The OpenTelemetry Collector's YAML; later files are laid over earlier ones. Also `env:NAME` and `yaml:TEXT`.
    #[arg(long, value_name = "FILE")]
    pub config: Vec<String>,
    /// Set one value over the files, e.g. processors.batch.timeout=2s; `::` between keys that have dots
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Variables for `${NAME}`, one NAME=VALUE a line; the process's own environment goes first
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Accepted for the collector's sake, without effect
    #[arg(long, hide = true)]
    pub feature_gates: Vec<String>,
}

/// Why there is no configuration to speak of.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the configuration {name}: {source}")]
    Read { name: String, source: std::io::Error },
    #[error("the environment variable {0}, which `--config env:{0}` names, is not set")]
    NoVariable(String),
    #[error("cannot read the variables in {}: {source}", path.display())]
    EnvFile { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}: expected NAME=VALUE", path.display())]
    EnvLine { path: PathBuf, line: usize },
    #[error("`--set {0}`: expected KEY=VALUE, for example processors.batch.timeout=2s")]
    Set(String),
    #[error("{0}")]
    Wrong(Problems),
}

impl Files {
    /// Adds what was written before the command.
    pub fn after(mut self, mut earlier: Files) -> Files {
        earlier.config.append(&mut self.config);
        earlier.set.append(&mut self.set);
        earlier.env_file.append(&mut self.env_file);
        earlier
    }

    /// Reads the files, or the built-in configuration, and lays `overlays` over it.
    pub fn load(&self, overlays: Vec<Source>) -> Result<Config, LoadError> {
        let mut sources = Vec::new();
        if self.config.is_empty() {
            sources.push(Source::new("built-in", BUILT_IN));
        }
        for name in &self.config {
            sources.push(read(name)?);
        }
        sources.extend(overlays);
        for set in &self.set {
            sources.push(set_source(set)?);
        }
        let variables = self.variables()?;
        let lookup = |name: &str| std::env::var(name).ok().or_else(|| variables.get(name).cloned());
        Config::load(sources, &lookup).map_err(LoadError::Wrong)
    }

    fn variables(&self) -> Result<HashMap<String, String>, LoadError> {
        let mut variables = HashMap::new();
        for path in &self.env_file {
            let text = std::fs::read_to_string(path).map_err(|source| LoadError::EnvFile {
                path: path.clone(),
                source,
            })?;
            for (index, line) in text.lines().enumerate() {
                let line = line.trim();
                let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.trim().is_empty()) else {
                    return Err(LoadError::EnvLine {
                        path: path.clone(),
                        line: index + 1,
                    });
                };
                variables.insert(name.trim().to_owned(), unquoted(value.trim()).to_owned());
            }
        }
        Ok(variables)
    }
}

fn unquoted(value: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}

/// The collector's providers: a path, with or without `file:`, a variable, or the text itself.
fn read(name: &str) -> Result<Source, LoadError> {
    if let Some(variable) = name.strip_prefix("env:") {
        let text = std::env::var(variable).map_err(|_| LoadError::NoVariable(variable.to_owned()))?;
        return Ok(Source::new(name, text));
    }
    if let Some(text) = name.strip_prefix("yaml:") {
        // `processors::batch::timeout: 2s`, the collector's way to write one value.
        let path = text
            .split_once(": ")
            .filter(|(path, _)| path.contains("::") && !path.contains('\n'));
        let text = path.map_or_else(|| text.to_owned(), |(path, value)| nested(path.split("::"), value));
        return Ok(Source::new("yaml:", text));
    }
    let path = Path::new(name.strip_prefix("file:").unwrap_or(name));
    let failed = |source| LoadError::Read {
        name: path.display().to_string(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(Source {
        open_to_all: open_to_all(&file),
        ..Source::new(path.display().to_string(), text)
    })
}

/// `a.b.c=value` as the YAML that says it.
fn set_source(set: &str) -> Result<Source, LoadError> {
    let wrong = || LoadError::Set(set.to_owned());
    let (path, value) = set.split_once('=').ok_or_else(wrong)?;
    let between = if path.contains("::") { "::" } else { "." };
    if path.split(between).any(str::is_empty) {
        return Err(wrong());
    }
    Ok(Source::new(format!("--set {path}"), nested(path.split(between), value)))
}

/// Each key on a line of its own, so that a mistake is shown beside the key it belongs to.
fn nested<'a>(path: impl Iterator<Item = &'a str>, value: &str) -> String {
    let mut text = String::new();
    for (depth, key) in path.enumerate() {
        if depth > 0 {
            text.push('\n');
        }
        // A text in JSON is one in YAML.
        text += &format!("{:depth$}{}:", "", serde_json::Value::from(key));
    }
    format!("{text} {value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(set: &[&str]) -> String {
        let files = Files {
            set: set.iter().map(|set| (*set).to_owned()).collect(),
            ..Files::default()
        };
        match files.load(Vec::new()) {
            Ok(config) => config.to_yaml(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn one_value_is_set_over_the_files() {
        let shown = yaml(&[
            "processors.memory_limiter.limit_mib=64",
            "exporters::otlp/b.c::endpoint=backend:4317",
            "service.pipelines.logs=",
            "service.pipelines.traces.exporters=[store, otlp/b.c]",
        ]);
        for expect in [
            "    limit_mib: 64\n    check_interval: 1s\n",
            "  otlp/b.c:\n    endpoint: backend:4317\n",
            "      exporters: [store, otlp/b.c]\n",
        ] {
            assert!(shown.contains(expect), "{expect}\n{shown}");
        }
        assert!(!shown.contains("    logs:"), "null deletes\n{shown}");
        for wrong in ["batch", "a..b=1", "=1"] {
            assert!(yaml(&[wrong]).contains("expected KEY=VALUE"), "{wrong}");
        }
    }

    #[test]
    fn a_mistake_in_a_set_value_is_shown_where_it_stands() {
        let files = Files {
            set: vec!["processors.memory_limiter.limit_mib=lots".to_owned()],
            ..Files::default()
        };
        let config = files.load(Vec::new()).expect("a document");
        let problems = crate::tables::plan(&config).err().expect("a mistake").to_string();
        assert_eq!(
            problems,
            "--set processors.memory_limiter.limit_mib:3:15: expected a whole number, found `lots`\n  |\n\
             3 |   \"limit_mib\": lots\n  |                ^^^^\n"
                .replace(":3:15:", ":3:16:")
        );
    }

    #[test]
    fn variables_come_from_files_too() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("writes");
            path
        };
        let mut files = Files {
            env_file: vec![
                file("a", "# limits\nTRACKLINE_A=1\nexport TRACKLINE_B=\"x y\"\n\n"),
                file("b", "TRACKLINE_A = 2 \nPATH=nowhere\n"),
            ],
            config: vec!["yaml:x-a: [\"${TRACKLINE_A}\", \"${TRACKLINE_B}\", \"${PATH}\"]".to_owned()],
            ..Files::default()
        };
        let variables = files.variables().expect("reads");
        assert_eq!(variables["TRACKLINE_A"], "2", "later files go first");
        assert_eq!(variables["TRACKLINE_B"], "x y");
        assert!(files.load(Vec::new()).is_ok());
        files.env_file.push(file("c", "A=1\nno value\n"));
        let wrong = files.variables().expect_err("a mistake").to_string();
        assert!(wrong.ends_with("c:2: expected NAME=VALUE"), "{wrong}");
    }

    #[test]
    fn the_collectors_other_ways_to_name_a_configuration() {
        let text = |name: &str| read(name).expect("reads").text;
        assert_eq!(
            text("yaml:processors::batch::timeout: 2s"),
            "\"processors\":\n \"batch\":\n  \"timeout\": 2s\n"
        );
        assert_eq!(text("yaml:{a: 1}"), "{a: 1}");
        assert!(read("env:TRACKLINE_NOT_SET").is_err_and(|error| error.to_string().contains("TRACKLINE_NOT_SET")));
        assert!(read("no/such/file.yaml").is_err_and(|error| error.to_string().contains("no/such/file.yaml")));
    }
}
