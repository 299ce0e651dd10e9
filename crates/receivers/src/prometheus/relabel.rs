//! Why: relabelling is a small language over labels, the same for targets and for series. It is compiled once; what it does is what Prometheus'
//! `model/relabel` does, whose configurations come here unchanged.
//!
//! Source: Prometheus, "Configuration", `<relabel_config>`.

use std::fmt::Write;

use codec::prometheus::series::LabelSet;
use md5::{Digest, Md5};
use regex::Regex;
use serde::{Deserialize, Deserializer};

/// The default of `regex`: everything.
const ANYTHING: &str = "(.*)";
/// The default of `replacement`: what the first group matched.
const FIRST_GROUP: &str = "$1";
/// The default of `separator`.
const SEMICOLON: &str = ";";

/// Bytes of a compiled expression. Prometheus' own are a few kilobytes; alternations over a thousand names stay below a megabyte.
const MAX_REGEX_BYTES: usize = 4 << 20;

/// One step of `relabel_configs` or `metric_relabel_configs`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelabelConfig {
    /// Labels whose values are joined to the text that is looked at. Default: none.
    pub source_labels: Option<Vec<String>>,
    /// What stands between those values. Default `;`.
    pub separator: Option<String>,
    /// The label that is written. Needed by `replace`, `hashmod`, `lowercase`, `uppercase`, `keepequal` and `dropequal`.
    pub target_label: Option<String>,
    /// What the whole of the text, or of a label's name, has to match. Default `(.*)`.
    pub regex: Option<String>,
    /// By what `hashmod` divides. Default: none.
    pub modulus: Option<u64>,
    /// What is written; `$1` is the first group of `regex`, to be written as `$$1` here. Default `$1`.
    pub replacement: Option<String>,
    /// `replace` (default), `keep`, `drop`, `keepequal`, `dropequal`, `hashmod`, `labelmap`, `labeldrop`, `labelkeep`, `lowercase` or `uppercase`.
    #[serde(deserialize_with = "action")]
    pub action: Action,
}

/// `action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    #[default]
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    HashMod,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

const ACTIONS: [(&str, Action); 11] = [
    ("replace", Action::Replace),
    ("keep", Action::Keep),
    ("drop", Action::Drop),
    ("keepequal", Action::KeepEqual),
    ("dropequal", Action::DropEqual),
    ("hashmod", Action::HashMod),
    ("labelmap", Action::LabelMap),
    ("labeldrop", Action::LabelDrop),
    ("labelkeep", Action::LabelKeep),
    ("lowercase", Action::Lowercase),
    ("uppercase", Action::Uppercase),
];

/// Prometheus takes them in any case.
fn action<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Action, D::Error> {
    const NAMES: &[&str] = &[
        "replace",
        "keep",
        "drop",
        "keepequal",
        "dropequal",
        "hashmod",
        "labelmap",
        "labeldrop",
        "labelkeep",
        "lowercase",
        "uppercase",
    ];
    let name = String::deserialize(deserializer)?.to_ascii_lowercase();
    let known = ACTIONS.iter().find(|(known, _)| *known == name);
    known
        .map(|(_, action)| *action)
        .ok_or_else(|| serde::de::Error::unknown_variant(&name, NAMES))
}

fn mistake<T>(key: &'static str, message: String) -> Result<T, Mistake> {
    Err(Mistake { key, message })
}

/// A compiled step.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    action: Action,
    source_labels: Vec<String>,
    separator: String,
    target_label: String,
    regex: Regex,
    /// `regex` was left at its default, which matches every text.
    is_any: bool,
    modulus: u64,
    replacement: String,
}

/// What is wrong with a step, and at which of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) key: &'static str,
    pub(crate) message: String,
}

impl RelabelConfig {
    pub(crate) fn compile(&self) -> Result<Rule, Mistake> {
        let action = self.action;
        let name = ACTIONS
            .iter()
            .find(|(_, known)| *known == action)
            .map_or("", |(name, _)| name);
        let unused = |keys: &[&'static str]| {
            let set = [
                ("source_labels", self.source_labels.is_some()),
                ("separator", self.separator.as_deref().is_some_and(|it| it != SEMICOLON)),
                (
                    "target_label",
                    self.target_label.as_deref().is_some_and(|it| !it.is_empty()),
                ),
                ("regex", self.regex.as_deref().is_some_and(|it| it != ANYTHING)),
                ("modulus", self.modulus.is_some_and(|it| it != 0)),
                (
                    "replacement",
                    self.replacement.as_deref().is_some_and(|it| it != FIRST_GROUP),
                ),
            ];
            let wrong = set.iter().find(|(key, set)| *set && keys.contains(key));
            match wrong {
                None => Ok(()),
                Some((key, _)) => mistake(key, format!("`{name}` does not use `{key}`; leave it out")),
            }
        };
        let target = self.target_label.clone().unwrap_or_default();
        match action {
            Action::LabelDrop | Action::LabelKeep => {
                unused(&["source_labels", "separator", "target_label", "modulus", "replacement"])?;
            }
            Action::KeepEqual | Action::DropEqual => unused(&["separator", "regex", "modulus", "replacement"])?,
            Action::Lowercase | Action::Uppercase => unused(&["replacement"])?,
            _ => {}
        }
        if action == Action::HashMod && self.modulus.unwrap_or(0) == 0 {
            return mistake("modulus", "`hashmod` needs a `modulus` of at least 1".to_owned());
        }
        let replacement = self.replacement.clone().unwrap_or_else(|| FIRST_GROUP.to_owned());
        match action {
            Action::Replace
            | Action::HashMod
            | Action::Lowercase
            | Action::Uppercase
            | Action::KeepEqual
            | Action::DropEqual => {
                if target.is_empty() {
                    return mistake("action", format!("`{name}` needs a `target_label`"));
                }
                if !is_template(&target, action == Action::Replace) {
                    return mistake("target_label", format!("`{target}` cannot be the name of a label"));
                }
            }
            Action::LabelMap if !is_template(&replacement, true) => {
                return mistake("replacement", format!("`{replacement}` cannot be the name of a label"));
            }
            _ => {}
        }
        let text = self.regex.as_deref().unwrap_or(ANYTHING);
        // The groups keep an alternative or a flag inside from reaching the anchors; a dot means any character, as in Prometheus 3.
        let regex = regex::RegexBuilder::new(&format!("^(?s:{text})$"))
            .size_limit(MAX_REGEX_BYTES)
            .build();
        let regex = match regex {
            Ok(regex) => regex,
            Err(regex::Error::CompiledTooBig(_)) => {
                return mistake("regex", "the regular expression is too large".to_owned());
            }
            Err(error) => {
                let error = error.to_string();
                let last = error
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim()
                    .trim_start_matches("error: ");
                return mistake("regex", format!("`{text}` is not a regular expression: {last}"));
            }
        };
        Ok(Rule {
            action,
            source_labels: self.source_labels.clone().unwrap_or_default(),
            separator: self.separator.clone().unwrap_or_else(|| SEMICOLON.to_owned()),
            target_label: target,
            regex,
            is_any: text == ANYTHING,
            modulus: self.modulus.unwrap_or(1),
            replacement,
        })
    }
}

/// Whether a text is the name of a label, or becomes one when groups are put in. Names are UTF-8, as in Prometheus 3.
fn is_template(text: &str, may_refer: bool) -> bool {
    is_label_name(text) && (may_refer || !text.contains('$'))
}

/// Whether a text can be the name of a label.
pub(crate) fn is_label_name(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

/// Applies all steps in order. `false`: the target or the series is dropped.
#[must_use]
pub(crate) fn apply(rules: &[Rule], labels: &mut LabelSet) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

impl Rule {
    fn apply(&self, labels: &mut LabelSet) -> bool {
        let mut text = String::new();
        for (at, name) in self.source_labels.iter().enumerate() {
            if at > 0 {
                text.push_str(&self.separator);
            }
            text.push_str(labels.get(name));
        }
        match self.action {
            Action::Keep => return self.is_match(&text),
            Action::Drop => return !self.is_match(&text),
            Action::KeepEqual => return labels.get(&self.target_label) == text,
            Action::DropEqual => return labels.get(&self.target_label) != text,
            Action::Replace => self.replace(&text, labels),
            Action::Lowercase => labels.set(&self.target_label, &text.to_lowercase()),
            Action::Uppercase => labels.set(&self.target_label, &text.to_uppercase()),
            Action::HashMod => {
                let hash: [u8; 16] = Md5::digest(text.as_bytes()).into();
                let [.., a, b, c, d, e, f, g, h] = hash;
                let rest = u64::from_be_bytes([a, b, c, d, e, f, g, h]) % self.modulus;
                text.clear();
                // Writing to a text cannot fail.
                let _ = write!(text, "{rest}");
                labels.set(&self.target_label, &text);
            }
            Action::LabelMap => {
                let matching: Vec<(String, String)> = labels
                    .iter()
                    .filter(|(name, _)| self.is_match(name))
                    .map(|(name, value)| {
                        let new = self.regex.replace_all(name, self.replacement.as_str());
                        (new.into_owned(), value.to_owned())
                    })
                    .collect();
                for (name, value) in matching.iter().filter(|(name, _)| is_label_name(name)) {
                    labels.set(name, value);
                }
            }
            Action::LabelDrop => labels.retain(|name, _| !self.is_match(name)),
            Action::LabelKeep => labels.retain(|name, _| self.is_match(name)),
        }
        true
    }

    fn is_match(&self, text: &str) -> bool {
        self.is_any || self.regex.is_match(text)
    }

    fn replace(&self, text: &str, labels: &mut LabelSet) {
        if self.is_any && !self.target_label.contains('$') && !self.replacement.contains('$') {
            labels.set(&self.target_label, &self.replacement);
            return;
        }
        let Some(groups) = self.regex.captures(text) else {
            return;
        };
        let (mut name, mut value) = (String::new(), String::new());
        groups.expand(&self.target_label, &mut name);
        groups.expand(&self.replacement, &mut value);
        if is_label_name(&name) {
            labels.set(&name, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps as YAML, labels before, labels after (`-`: dropped).
    const RELABELLING: &str = include_str!("relabel.test");

    fn parse(text: &str) -> LabelSet {
        let mut labels = LabelSet::default();
        for pair in text.split_whitespace() {
            let (name, value) = pair.split_once('=').expect("name=value");
            labels.set(name, &value.replace('␣', " "));
        }
        labels
    }

    fn show(labels: &LabelSet) -> String {
        let mut pairs: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}={}", value.replace(' ', "␣")))
            .collect();
        pairs.sort();
        pairs.join(" ")
    }

    fn rules(yaml: &str) -> Result<Vec<Rule>, String> {
        let source = pipeline::config::Source::new("test", yaml);
        let configs: Vec<RelabelConfig> = pipeline::config::read(source).map_err(|problems| problems.to_string())?;
        let compiled = configs.iter().map(RelabelConfig::compile).collect::<Result<_, _>>();
        compiled.map_err(|mistake| format!("{}: {}", mistake.key, mistake.message))
    }

    /// Each block is `steps`, then lines `before -> after`; or `steps` and a line `! mistake`.
    #[test]
    fn relabelling_as_data() {
        let (mut yaml, mut checked) = (String::new(), 0);
        for (number, line) in RELABELLING.lines().enumerate() {
            let at = format!("line {}", number + 1);
            if line.starts_with('#') {
            } else if line.is_empty() {
                yaml.clear();
            } else if let Some(expect) = line.strip_prefix("! ") {
                let said = rules(&yaml).expect_err(&at);
                assert!(said.contains(expect), "{at}: {said}");
                checked += 1;
            } else if let Some((before, after)) = line.split_once("->") {
                let rules = rules(&yaml).unwrap_or_else(|said| panic!("{at}: {said}"));
                let mut labels = parse(before);
                let got = match apply(&rules, &mut labels) {
                    true => show(&labels),
                    false => "-".to_owned(),
                };
                assert_eq!(got, after.trim(), "{at}");
                checked += 1;
            } else {
                yaml.push_str(line);
                yaml.push('\n');
            }
        }
        assert!(checked > 50, "only {checked} cases were found");
    }

    /// What Prometheus' own tool makes of the same: labels that are not internal, without those that each target has.
    fn promtool(yaml: &str, cases: &[LabelSet]) -> Vec<String> {
        let mut text = "scrape_configs:\n- job_name: j\n  relabel_configs:\n".to_owned();
        yaml.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
        text.push_str("  static_configs:\n");
        for (at, labels) in cases.iter().enumerate() {
            let json = |text: &str| serde_json::json!(text).to_string();
            let pairs: Vec<String> = labels
                .iter()
                .map(|(name, value)| format!("{}: {}", json(name), json(value)))
                .collect();
            let pairs = pairs.join(", ");
            text.push_str(&format!("  - {{ targets: [ 'case:{at}' ], labels: {{ {pairs} }} }}\n"));
        }
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, &text).expect("writes");
        let asked = std::process::Command::new("promtool")
            // It listens to its sources for the whole of that time.
            .args(["check", "service-discovery", "--timeout=1s"])
            .arg(&file)
            .arg("j")
            .output()
            .expect("it is installed");
        let found: Vec<serde_json::Value> = serde_json::from_slice(&asked.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{text}", String::from_utf8_lossy(&asked.stderr)));
        let told = |at: usize| {
            let address = format!("case:{at}");
            let found = found
                .iter()
                .find(|it| it["discoveredLabels"]["__address__"] == address.as_str());
            let found = found
                .unwrap_or_else(|| panic!("{address} is not in {}\n{text}", String::from_utf8_lossy(&asked.stdout)));
            let labels = found["labels"].as_object().cloned();
            let labels = labels.unwrap_or_default();
            if labels.is_empty() {
                return "-".to_owned();
            }
            let mut set = LabelSet::default();
            for (name, value) in &labels {
                set.set(name, value.as_str().unwrap_or_default());
            }
            public(&set)
        };
        (0..cases.len()).map(told).collect()
    }

    fn public(labels: &LabelSet) -> String {
        let mut labels = labels.clone();
        labels.retain(|name, _| !name.starts_with("__") && name != "instance" && name != "job");
        show(&labels)
    }

    #[test]
    fn prometheus_does_the_same() {
        if std::process::Command::new("promtool")
            .arg("--version")
            .output()
            .is_err()
        {
            eprintln!("skipped: promtool is not installed");
            return;
        }
        let blocks = RELABELLING.split("\n\n").filter_map(|block| {
            let lines = block.lines().filter(|line| !line.starts_with('#'));
            let (cases, steps): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.contains("->"));
            let yaml = steps.join("\n");
            let cases: Vec<LabelSet> = cases
                .iter()
                .filter_map(|it| Some(parse(it.split_once("->")?.0)))
                .collect();
            // Names in UTF-8 came with Prometheus 3; cases are told apart by their address.
            let is_there = !cases.is_empty() && yaml.is_ascii();
            let is_there = is_there && !yaml.contains("__address__") && !yaml.contains("labelkeep");
            is_there.then_some((yaml, cases))
        });
        let check = |(yaml, cases): (String, Vec<LabelSet>)| {
            let rules = rules(&yaml).expect("right");
            for (labels, theirs) in cases.iter().zip(promtool(&yaml, &cases)) {
                let mut after = labels.clone();
                let ours = match apply(&rules, &mut after) {
                    true => public(&after),
                    false => "-".to_owned(),
                };
                assert_eq!(ours, theirs, "{yaml}\n{}", show(labels));
            }
            cases.len()
        };
        let checked: usize = std::thread::scope(|scope| {
            let checks: Vec<_> = blocks.map(|block| scope.spawn(move || check(block))).collect();
            checks.into_iter().map(|check| check.join().expect("the same")).sum()
        });
        assert!(checked > 30, "only {checked} cases");
    }
}
