//! Why: `trackline config` prints the configuration that is in effect, after all files were laid over each other. Variables are shown as they were
//! written, and what looks like a secret is not shown, so that the output may be pasted into a ticket.

use std::fmt::Write;

use super::document::Config;
use super::secrets;
use super::yaml::{Node, Scalar, Value};

impl Config {
    /// The effective configuration as YAML.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        write_map(&mut out, &self.root, 0);
        out
    }
}

fn write_map(out: &mut String, node: &Node, indent: usize) {
    for entry in node.entries() {
        let _ = write!(out, "{:indent$}{}:", "", quoted(&entry.key, true));
        write_value(out, &entry.value, indent + 2);
    }
}

fn write_value(out: &mut String, node: &Node, indent: usize) {
    match &node.value {
        Value::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
        Value::List(list) if list.is_empty() => out.push_str(" []\n"),
        Value::Map(_) => {
            out.push('\n');
            write_map(out, node, indent);
        }
        Value::List(list) => {
            if let Some(items) = flow(list) {
                let _ = writeln!(out, " [{items}]");
                return;
            }
            out.push('\n');
            for item in list {
                let mut text = String::new();
                match &item.value {
                    Value::Map(entries) if !entries.is_empty() => write_map(&mut text, item, indent + 2),
                    Value::List(_) | Value::Map(_) | Value::Scalar(_) => write_value(&mut text, item, indent + 2),
                }
                let _ = write!(out, "{:indent$}- {}", "", text.trim_start());
            }
        }
        Value::Scalar(scalar) if scalar.is_null() && matches!(scalar.raw.as_str(), "" | "~") => out.push('\n'),
        Value::Scalar(scalar) => {
            let _ = writeln!(out, " {}", written(scalar));
        }
    }
}

/// Short lists of names go on one line, as people write them.
fn flow(list: &[Node]) -> Option<String> {
    let names: Option<Vec<String>> = list
        .iter()
        .map(|item| match &item.value {
            Value::Scalar(scalar) => Some(written(scalar)),
            Value::List(_) | Value::Map(_) => None,
        })
        .collect();
    names.map(|names| names.join(", "))
}

fn written(scalar: &Scalar) -> String {
    if scalar.secret && !secrets::shows_nothing(scalar) {
        return format!("\"{}\"", secrets::REDACTED);
    }
    quoted(&scalar.raw, scalar.plain && !scalar.substituted)
}

fn quoted(text: &str, plain: bool) -> String {
    let safe = plain
        && !text.is_empty()
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with(':')
        && !text.contains(['\n', ',', '[', ']'])
        && (!text.contains(['{', '}']) || text.starts_with('$'))
        && !text.starts_with(['"', '\'', '&', '*', '!', '|', '>', '%', '@', '`', '#', ' ', '-']);
    if safe {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}
