//! `trackline components`: what a configuration may name, and what each takes. Names come from the tables of the program, everything else from the
//! reference that is written from the code, so that neither is told twice.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use super::terminal::{Ink, Terminal};
use super::{FOUND, Failure, NOT_FOUND, finish};
use crate::tables::{self, Listed};

/// The generated reference.
const REFERENCE: &str = include_str!("../../../../docs/configuration.md");

/// What has been run in earnest for a while; anything else is newer than that.
const PROVEN: [&str; 10] = [
    "otlp",
    "otlphttp",
    "memory_limiter",
    "resource",
    "batch",
    "store",
    "debug",
    "file",
    "query",
    "health_check",
];

/// List the components that a configuration may name, or print all keys of one with their defaults.
#[derive(clap::Args, Clone, Debug)]
pub struct ComponentsArgs {
    /// One component, by any of its names: `otlp`, or `exporter/otlp` for only that kind
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What the reference says of one component.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
struct Described {
    about: String,
    sample: String,
    keys: Vec<Key>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Key {
    key: String,
    value: String,
    required: bool,
    meaning: String,
}

impl ComponentsArgs {
    pub fn run(self) -> ExitCode {
        let terminal = Terminal::of_stdout();
        let listed = tables::listed();
        finish(match (&self.name, self.json) {
            (None, false) => Ok((table(&listed, &terminal), FOUND)),
            (None, true) => {
                let all: Vec<_> = listed.iter().map(|listed| object(listed, false)).collect();
                Ok((format!("{:#}\n", json!(all)), FOUND))
            }
            (Some(name), json) => found(&listed, name).map(|found| {
                let text = match json {
                    true => format!(
                        "{:#}\n",
                        json!(found.iter().map(|it| object(it, true)).collect::<Vec<_>>())
                    ),
                    false => found
                        .iter()
                        .map(|listed| page(listed, &terminal))
                        .collect::<Vec<_>>()
                        .join("\n"),
                };
                (text, FOUND)
            }),
        })
    }
}

fn found<'l>(listed: &'l [Listed], name: &str) -> Result<Vec<&'l Listed>, Failure> {
    let (what, kind) = match name.split_once('/') {
        Some((what, kind)) => (Some(what.trim_end_matches('s')), kind),
        None => (None, name),
    };
    let matches =
        |it: &&Listed| (it.name == kind || it.also.contains(&kind)) && what.is_none_or(|what| it.what == what);
    let found: Vec<&Listed> = listed.iter().filter(matches).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let names = listed
        .iter()
        .flat_map(|it| std::iter::once(it.name).chain(it.also.iter().copied()));
    let hint = pipeline::config::suggest(kind, names).unwrap_or_default();
    Err(Failure {
        code: NOT_FOUND,
        text: format!("there is no component `{name}`; {hint}"),
    })
}

fn stability(name: &str) -> &'static str {
    if PROVEN.contains(&name) { "beta" } else { "alpha" }
}

fn signals(listed: &Listed) -> String {
    if listed.signals.is_empty() {
        return if listed.what == "extension" { "–" } else { "all" }.to_owned();
    }
    let names: Vec<&str> = listed.signals.iter().map(|signal| signal.as_str()).collect();
    names.join(", ")
}

fn object(listed: &Listed, with_keys: bool) -> serde_json::Value {
    let described = described(listed);
    let signals: Vec<&str> = match &listed.signals[..] {
        [] if listed.what == "extension" => Vec::new(),
        [] => model::Signal::ALL.iter().map(|signal| signal.as_str()).collect(),
        signals => signals.iter().map(|signal| signal.as_str()).collect(),
    };
    let mut object = json!({
        "kind": listed.what,
        "name": listed.name,
        "other_names": listed.also,
        "signals": signals,
        "stability": stability(listed.name),
        "summary": sentence(&described.about),
    });
    if with_keys {
        object["about"] = described.about.into();
        object["sample"] = described.sample.into();
        object["keys"] = json!(described.keys);
    }
    object
}

fn table(listed: &[Listed], terminal: &Terminal) -> String {
    let names: Vec<String> = listed
        .iter()
        .map(|it| match it.also {
            [] => it.name.to_owned(),
            also => format!("{} ({})", it.name, also.join(", ")),
        })
        .collect();
    let signals: Vec<String> = listed.iter().map(signals).collect();
    let width = |texts: &[String]| texts.iter().map(|text| text.chars().count()).max().unwrap_or_default();
    let (wide_name, wide_signals) = (width(&names), width(&signals));
    let mut text = String::new();
    let mut last = "";
    for ((listed, name), signals) in listed.iter().zip(&names).zip(&signals) {
        if listed.what != last {
            let gap = if last.is_empty() { "" } else { "\n" };
            text += &format!("{gap}{}\n", terminal.ink(Ink::Bold, &format!("{}s", listed.what)));
            last = listed.what;
        }
        let line = format!(
            "  {name:wide_name$}  {signals:wide_signals$}  {:5}  {}",
            stability(listed.name),
            sentence(&described(listed).about)
        );
        text += &format!("{}\n", cut(&line, terminal.columns));
    }
    text + "\n`trackline components NAME` shows the keys of one with their defaults.\n"
}

fn page(listed: &Listed, terminal: &Terminal) -> String {
    let described = described(listed);
    let mut text = terminal.ink(Ink::Bold, &format!("{} {}", listed.what, listed.name)) + "\n";
    if !listed.also.is_empty() {
        text += &format!("also written {}\n", listed.also.join(", "));
    }
    text += &format!("signals: {}, stability: {}\n", signals(listed), stability(listed.name));
    text += &format!("\n{}\n\n", described.about);
    if !described.sample.is_empty() {
        text += &format!("{}\n\n", described.sample);
    }
    for key in &described.keys {
        let need = if key.required { ", required" } else { "" };
        text += &format!(
            "{}  {}\n    {}\n",
            terminal.ink(Ink::Bold, &key.key),
            terminal.ink(Ink::Faint, &format!("{}{need}", key.value)),
            key.meaning
        );
    }
    text
}

fn cut(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    let kept: String = line.chars().take(columns.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// The first sentence, as a heading has it.
fn sentence(about: &str) -> String {
    let paragraph = about.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    let end = paragraph.find(". ").unwrap_or(paragraph.len());
    paragraph[..end].trim_end_matches(['.', ':']).to_owned()
}

fn described(listed: &Listed) -> Described {
    let mut title = listed.what.to_owned();
    title[..1].make_ascii_uppercase();
    let heading = format!("{title} `{}`\n", listed.name);
    REFERENCE
        .split("\n## ")
        .find_map(|section| section.strip_prefix(&heading))
        .map(read)
        .unwrap_or_default()
}

/// A section of the reference: words, a sample in a fence, a table of keys.
fn read(section: &str) -> Described {
    let (before, table) = section.split_once("\n| key |").unwrap_or((section, ""));
    let mut parts = before.split("```");
    let (words, fence) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let rest: String = parts.collect();
    let about = [words.trim(), rest.trim()].join("\n\n");
    let sample = fence.split_once('\n').map_or(fence, |(_, sample)| sample);
    let keys = table
        .lines()
        .skip(2)
        .map_while(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    Described {
        about: about.trim().to_owned(),
        sample: sample.trim_end().to_owned(),
        keys: keys.filter_map(key).collect(),
    }
}

fn key(row: &str) -> Option<Key> {
    let (key, rest) = row.split_once(" | ")?;
    let (value, meaning) = rest.split_once(" | ")?;
    let required = "**Required.** ";
    Some(Key {
        key: key.trim_matches('`').to_owned(),
        value: value.replace('`', ""),
        required: meaning.starts_with(required),
        meaning: meaning.trim_start_matches(required).replace("\\|", "|"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component that the reference does not have would be listed without a word.
    #[test]
    fn everything_in_the_tables_is_in_the_reference() {
        for listed in tables::listed() {
            let described = described(&listed);
            let name = format!("{} {}", listed.what, listed.name);
            assert!(
                !described.about.is_empty(),
                "{name} has no section in docs/configuration.md"
            );
            let has_none = described.about.ends_with("It has no settings.");
            assert!(described.keys.is_empty() == has_none, "{name} has no keys");
            assert!(!sentence(&described.about).is_empty(), "{name}");
        }
    }

    #[test]
    fn a_section_is_read_whole() {
        let section = "\nWhat it is. And\nmore.\n\n```yaml\na:\n  b: 1\n```\n\n| key | value | meaning |\n|---|---|---|\n\
                       | `a` | map | What `a` is. |\n| `a.b` | `x`, `y` | **Required.** One \\| two. |\n\n## Next\n";
        let described = read(section);
        assert_eq!(described.about, "What it is. And\nmore.");
        assert_eq!(sentence(&described.about), "What it is");
        assert_eq!(described.sample, "a:\n  b: 1");
        let keys: Vec<_> = described
            .keys
            .iter()
            .map(|key| (&*key.key, &*key.value, key.required, &*key.meaning))
            .collect();
        assert_eq!(
            keys,
            [("a", "map", false, "What `a` is."), ("a.b", "x, y", true, "One | two.")]
        );
    }

    #[test]
    fn names_are_found_by_kind_and_by_other_names() {
        let listed = tables::listed();
        let named = |name: &str| match found(&listed, name) {
            Ok(found) => found.iter().map(|it| format!("{}/{}", it.what, it.name)).collect(),
            Err(failure) => vec![failure.text],
        };
        assert_eq!(named("otlp"), ["receiver/otlp", "exporter/otlp"]);
        assert_eq!(named("exporters/otlp_grpc"), ["exporter/otlp"]);
        assert_eq!(named("bacth"), ["there is no component `bacth`; did you mean `batch`?"]);
    }
}
