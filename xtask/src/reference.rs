//! The configuration reference, written from the doc comments of the structs that read the configuration.
//!
//! The structs are plain, so plain text reading is enough: a doc comment, attributes, `pub name: Type,`. A key without a
//! doc comment is a mistake, because the reference would not say what it does.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result, bail, ensure};

const PAGE: &str = "docs/configuration.md";
/// How a configuration file as a whole looks, in its module's opening.
const DOCUMENT: &str = "crates/pipeline/src/config/document.rs";
const INTRODUCTION: &str = "\
# Configuration

<!-- Written by `cargo xtask reference --write` from the doc comments in the code; edit them there. -->

`trackline collect --config FILE`, or `trackline --config FILE` as in an image, runs what the OpenTelemetry Collector's YAML
says. `trackline serve` takes the same options; without a file it runs the built-in all-in-one (`trackline config` prints it).
`trackline validate --config FILE` tells every mistake and every warning with its line, without running anything (exit code 0, or
1 if there are mistakes; `--json` for programs). `trackline components` lists what exists, `trackline components NAME` its keys.

- **Several sources.** `--config` may be given several times: later files are laid over earlier ones, maps merge, lists and
  values replace, null deletes. `--set processors.batch.timeout=2s` sets one value over all files; with `::` between the keys
  where one has a dot. `--config` also takes `env:NAME` and `yaml:TEXT`, as the collector does.
- **Variables.** `${NAME}`, `${env:NAME}` and `${env:NAME:-default}` stand for environment variables, `${file:PATH}` for what a file
  of at most 1 MiB holds without its last line end, `$$` for a dollar sign. A value that is one reference and nothing else has the
  type of what it stands for, lists and maps (`[a, b]`, `{a: 1}`) included; where a text is wanted it is the text. A variable that is
  not set and has no default is an empty text, with a warning, and an error where a value is needed. `--env-file FILE` reads
  `NAME=VALUE` lines; the process's own environment goes first.
- **Names.** A component is `kind` or `kind/name`, by any of the names that `trackline components` lists; it runs when a pipeline or
  `service.extensions` names it. An unknown key is an error that names its line and what was probably meant.
- **Values.** Durations are written `200ms`, `1h30m`, `7d`, `1w` or `1y`, sizes `64MiB`, `10GB` or as a number of bytes.
- **Secrets.** Neither messages nor `trackline config` show what stands under `headers` or a key such as `password` or `token`, what
  comes from a variable such as `API_KEY` or from `${file:…}`, or a password in an address. A secret in a file that every user of the
  machine may read is warned of.
- **SIGHUP** has all of it read again. A configuration with mistakes is refused, with the mistakes in the log, and the old one keeps running; otherwise the
  new one starts on the sockets that are open, and what was acknowledged is delivered as after a restart.
- **The journal** lies in `service.journal.directory`, else in the folder of the extension `file_storage`, else in `--data-dir`. Where
  nothing of that is said and `./trackline-data` cannot be written, the process runs without one and says so in its log and
  health check; a place that was asked for must be writable.
";

/// Heading, the struct (or several that are read from one map), its file, and the files of the structs inside it.
const SECTIONS: &[(&str, &str, &[&str])] = &[
    (
        "Receiver `otlp`",
        "Config",
        &[
            "crates/receivers/src/otlp/config.rs",
            "crates/receivers/src/otlp/cors.rs",
            TLS,
            AUTH,
        ],
    ),
    (
        "Receiver `jaeger`",
        "Config",
        &["crates/receivers/src/jaeger.rs", TLS, AUTH],
    ),
    (
        "Receiver `loki`",
        "Config",
        &["crates/receivers/src/loki.rs", TLS, AUTH],
    ),
    (
        "Receiver `filelog`",
        "Config",
        &[
            "crates/receivers/src/filelog/mod.rs",
            "crates/receivers/src/filelog/operators/config.rs",
        ],
    ),
    ("Receiver `stdin`", "Config", &["crates/receivers/src/stdin.rs"]),
    (
        "Receiver `hostmetrics`",
        "Config",
        &["crates/receivers/src/hostmetrics/mod.rs"],
    ),
    (
        "Receiver `prometheusremotewrite`",
        "Config",
        &["crates/receivers/src/prometheusremotewrite.rs", TLS, AUTH],
    ),
    (
        "Receiver `prometheus`",
        "Config",
        &[
            "crates/receivers/src/prometheus/mod.rs",
            "crates/receivers/src/prometheus/config.rs",
            "crates/receivers/src/prometheus/relabel.rs",
        ],
    ),
    (
        "Receiver `httpcheck`",
        "Config",
        &[
            "crates/receivers/src/httpcheck.rs",
            "crates/receivers/src/httpcheck/validation.rs",
            TLS,
        ],
    ),
    (
        "Processor `attributes`",
        "Config",
        &["crates/pipeline/src/processors/attributes.rs", ACTIONS, MATCHING],
    ),
    (
        "Processor `batch`",
        "Config",
        &["crates/pipeline/src/processors/batch.rs"],
    ),
    (
        "Processor `cumulativetodelta`",
        "Config",
        &["crates/pipeline/src/processors/cumulativetodelta.rs", MATCHING],
    ),
    (
        "Processor `deltatocumulative`",
        "Config",
        &["crates/pipeline/src/processors/deltatocumulative.rs"],
    ),
    (
        "Processor `filter`",
        "Config",
        &["crates/pipeline/src/processors/filter.rs", OTTL, ACTIONS, MATCHING],
    ),
    (
        "Processor `groupbyattrs`",
        "Config",
        &["crates/pipeline/src/processors/groupbyattrs.rs"],
    ),
    (
        "Processor `memory_limiter`",
        "Config",
        &["crates/pipeline/src/processors/memory_limiter.rs"],
    ),
    (
        "Processor `probabilistic_sampler`",
        "Config",
        &["crates/pipeline/src/processors/probabilistic_sampler.rs"],
    ),
    (
        "Processor `redaction`",
        "Config",
        &[
            "crates/pipeline/src/processors/redaction.rs",
            "crates/pipeline/src/processors/redaction/presets.rs",
        ],
    ),
    (
        "Processor `resource`",
        "Config",
        &["crates/pipeline/src/processors/resource.rs", ACTIONS],
    ),
    (
        "Processor `tail_sampling`",
        "Config",
        &["crates/pipeline/src/processors/tail_sampling.rs", OTTL],
    ),
    (
        "Processor `transform`",
        "Config",
        &["crates/pipeline/src/processors/transform.rs", OTTL],
    ),
    (
        "Connector `forward`",
        "Config",
        &["crates/pipeline/src/connectors/forward.rs"],
    ),
    (
        "Connector `servicegraph`",
        "Config",
        &["crates/pipeline/src/connectors/servicegraph.rs", HISTOGRAM],
    ),
    (
        "Connector `spanmetrics`",
        "Config",
        &["crates/pipeline/src/connectors/spanmetrics.rs", HISTOGRAM],
    ),
    ("Exporter `store`", "Config", &["crates/exporters/src/store.rs"]),
    (
        "Exporter `otlp`",
        "Settings + Shared",
        &["crates/exporters/src/otlp.rs", AUTH, TLS, SENDER, REQUEST, SENDING],
    ),
    (
        "Exporter `otlphttp`",
        "Settings + Shared",
        &["crates/exporters/src/otlphttp.rs", AUTH, TLS, SENDER, REQUEST, SENDING],
    ),
    (
        "Exporter `prometheus`",
        "Config",
        &["crates/exporters/src/prometheus/mod.rs", TLS],
    ),
    (
        "Exporter `prometheusremotewrite`",
        "Settings + Shared",
        &[
            "crates/exporters/src/prometheusremotewrite.rs",
            PROMETHEUS,
            AUTH,
            TLS,
            SENDER,
            REQUEST,
            SENDING,
        ],
    ),
    (
        "Exporter `jaeger`",
        "Settings + Shared",
        &["crates/exporters/src/jaeger.rs", AUTH, TLS, SENDER, REQUEST, SENDING],
    ),
    (
        "Exporter `kafka`",
        "Settings + Shared",
        &[
            "crates/exporters/src/kafka/config.rs",
            "crates/exporters/src/kafka/partition.rs",
            TLS,
            SENDER,
            REQUEST,
            SENDING,
        ],
    ),
    (
        "Exporter `loadbalancing`",
        "Settings + Shared",
        &[
            "crates/exporters/src/loadbalancing.rs",
            AUTH,
            TLS,
            SENDER,
            REQUEST,
            SENDING,
        ],
    ),
    (
        "Exporter `loki`",
        "Settings + Shared",
        &["crates/exporters/src/loki.rs", AUTH, TLS, SENDER, REQUEST, SENDING],
    ),
    (
        "Exporter `awscloudwatchlogs`",
        "Settings + Shared",
        &[
            "crates/exporters/src/awscloudwatchlogs.rs",
            TLS,
            SENDER,
            REQUEST,
            SENDING,
        ],
    ),
    (
        "Exporter `awsemf`",
        "Settings + Shared",
        &[
            "crates/exporters/src/awsemf.rs",
            PROMETHEUS,
            TLS,
            SENDER,
            REQUEST,
            SENDING,
        ],
    ),
    ("Exporter `file`", "Config", &["crates/exporters/src/file.rs"]),
    ("Exporter `debug`", "Config", &["crates/exporters/src/debug.rs"]),
    ("Extension `query`", "Query", &["crates/server/src/extensions.rs"]),
    (
        "Extension `health_check`",
        "HealthCheck",
        &["crates/server/src/extensions.rs"],
    ),
    (
        "Extension `file_storage`",
        "FileStorage",
        &["crates/server/src/file_storage.rs"],
    ),
    ("Extension `zpages`", "Zpages", &["crates/server/src/zpages.rs"]),
    ("Extension `basicauth`", "Config", &["crates/net/src/auth/basic.rs"]),
    (
        "Extension `bearertokenauth`",
        "Config",
        &["crates/net/src/auth/bearer.rs"],
    ),
    (
        "Extension `headers_setter`",
        "Config",
        &["crates/net/src/auth/headers_setter.rs"],
    ),
    ("`service.journal`", "JournalSettings", &[DOCUMENT]),
    (
        "`service.telemetry`",
        "Telemetry",
        &["crates/pipeline/src/config/telemetry.rs"],
    ),
];
const AUTH: &str = "crates/net/src/auth/mod.rs";
const TLS: &str = "crates/net/src/tls.rs";
const PROMETHEUS: &str = "crates/exporters/src/prometheus/mod.rs";
const ACTIONS: &str = "crates/pipeline/src/processors/actions.rs";
const MATCHING: &str = "crates/pipeline/src/processors/matching.rs";
const HISTOGRAM: &str = "crates/pipeline/src/connectors/histogram.rs";
const OTTL: &str = "crates/pipeline/src/ottl/group.rs";
const SENDER: &str = "crates/exporters/src/sender.rs";
const REQUEST: &str = "crates/exporters/src/request.rs";
const SENDING: &str = "crates/pipeline/src/sending.rs";

pub fn run(args: &[String]) -> Result<()> {
    let page = page()?;
    match args {
        [] => {
            let committed = fs::read_to_string(PAGE).unwrap_or_default();
            ensure!(
                committed == page,
                "{PAGE} is not what the code says; run `cargo xtask reference --write`"
            );
            Ok(())
        }
        [write] if write == "--write" => fs::write(PAGE, page).with_context(|| format!("writing {PAGE}")),
        _ => bail!("`reference` takes nothing or --write"),
    }
}

fn page() -> Result<String> {
    let mut page = format!("{INTRODUCTION}\n{}\n", yaml_of(&opening(&read(DOCUMENT)?)));
    for (heading, root, files) in SECTIONS {
        let mut items = BTreeMap::new();
        let mut intro = String::new();
        for file in files.iter().rev() {
            let text = read(file)?;
            intro = opening(&text);
            items.extend(items_of(&text, root).with_context(|| format!("reading {file}"))?);
        }
        // A key of a component's own goes before one that all of its kind have.
        let mut told = Vec::new();
        for name in root.split(" + ") {
            if let Some(Item::Struct { fields, .. }) = items.get_mut(name) {
                fields.retain(|field| !told.contains(&field.name));
                told.extend(fields.iter().map(|field| field.name.clone()));
            }
        }
        for (at, name) in root.split(" + ").enumerate() {
            let Some(Item::Struct { doc, fields }) = items.get(name) else {
                bail!("{}: there is no struct `{name}`", files[0]);
            };
            if at == 0 {
                // What several components of one file have in common says nothing of one of them.
                let intro = if doc.is_empty() { &intro } else { doc };
                writeln!(page, "\n## {heading}\n\n{intro}\n")?;
                match fields.is_empty() {
                    true => writeln!(page, "It has no settings.")?,
                    false => writeln!(page, "| key | value | meaning |\n|---|---|---|")?,
                }
            }
            rows(&mut page, "", fields, &items, &mut vec![name])?;
        }
    }
    Ok(page)
}

fn read(file: &str) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("reading {file}"))
}

/// The `//!` of a file, without the word that says that it is a reason.
fn opening(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    let doc = lines
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n");
    let doc = doc.strip_prefix("Why: ").unwrap_or(&doc);
    let first = doc
        .chars()
        .next()
        .map(|c| c.to_uppercase().to_string())
        .unwrap_or_default();
    first + doc.get(1..).unwrap_or_default()
}

fn yaml_of(doc: &str) -> String {
    let from = doc.find("```").unwrap_or_default();
    doc[from..].to_owned()
}

enum Item {
    Struct {
        doc: String,
        fields: Vec<Field>,
    },
    /// Its values as they are written.
    Enum(Vec<String>),
}

struct Field {
    doc: String,
    attributes: String,
    /// Whether the struct as a whole has defaults.
    has_default: bool,
    name: String,
    kind: String,
}

/// The public structs with fields and the plain enums of a file, up to its tests: those that serde reads, and those that are roots of a section
/// and may be read by hand.
fn items_of(text: &str, roots: &str) -> Result<BTreeMap<String, Item>> {
    let mut items = BTreeMap::new();
    let (mut doc, mut attributes) = (Vec::new(), String::new());
    let mut lines = text.split("#[cfg(test)]").next().unwrap_or_default().lines();
    while let Some(line) = lines.next() {
        if let Some(said) = line.strip_prefix("///") {
            doc.push(said.strip_prefix(' ').unwrap_or(said).to_owned());
        } else if line.starts_with("#[") {
            attributes.push_str(line);
        } else {
            let named = |keyword| line.strip_prefix(keyword)?.strip_suffix(" {");
            let is_root = named("pub struct ").is_some_and(|name| roots.split(" + ").any(|root| root == name));
            if !attributes.contains("Deserialize") && !is_root {
            } else if let Some(name) = line
                .strip_prefix("pub struct ")
                .and_then(|rest| rest.strip_suffix(" {}"))
            {
                let (doc, fields) = (doc.join("\n"), Vec::new());
                items.insert(name.to_owned(), Item::Struct { doc, fields });
            } else if let Some(name) = named("pub struct ") {
                let by_hand = !attributes.contains("Deserialize");
                let has_default = attributes.contains(if by_hand { "Default" } else { "default" });
                let fields = fields(&mut lines, has_default)?;
                let doc = doc.join("\n");
                items.insert(name.to_owned(), Item::Struct { doc, fields });
            } else if let Some(name) = named("pub enum ") {
                let body = lines.by_ref().take_while(|line| *line != "}");
                items.insert(name.to_owned(), Item::Enum(variants(body)));
            }
            doc.clear();
            attributes.clear();
        }
    }
    Ok(items)
}

fn variants<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let (mut variants, mut renamed) = (Vec::new(), None);
    for line in lines.map(str::trim) {
        if line.starts_with("#[") {
            renamed = renamed.or(new_name(line));
        } else if line.starts_with(char::is_uppercase) {
            let own = || snake_case(line.trim_end_matches(','));
            variants.push(renamed.take().map_or_else(own, str::to_owned));
        }
    }
    variants
}

/// What serde calls a field or a variant with these attributes, if it was told to.
fn new_name(attributes: &str) -> Option<&str> {
    let (_, rest) = attributes.split_once("rename = \"")?;
    Some(rest.split_once('"')?.0)
}

fn fields<'a>(lines: &mut impl Iterator<Item = &'a str>, has_default: bool) -> Result<Vec<Field>> {
    let mut fields = Vec::new();
    let (mut doc, mut attributes) = (Vec::new(), String::new());
    for line in lines.take_while(|line| *line != "}").map(str::trim) {
        if let Some(said) = line.strip_prefix("///") {
            doc.push(said.trim().to_owned());
        } else if let Some((name, kind)) = line.strip_prefix("pub ").and_then(|line| line.split_once(": ")) {
            ensure!(!doc.is_empty(), "the key `{name}` has no doc comment");
            let name = new_name(&attributes).unwrap_or(name).to_owned();
            fields.push(Field {
                doc: std::mem::take(&mut doc).join(" "),
                attributes: std::mem::take(&mut attributes),
                has_default,
                name,
                kind: kind.trim_end_matches(',').to_owned(),
            });
        } else {
            attributes.push_str(line);
        }
    }
    Ok(fields)
}

/// `within` are the structs around the fields; one that holds itself is told once.
fn rows<'a>(
    page: &mut String,
    prefix: &str,
    fields: &'a [Field],
    items: &'a BTreeMap<String, Item>,
    within: &mut Vec<&'a str>,
) -> Result<()> {
    for field in fields {
        let (name, doc) = (field.name.trim_start_matches("r#"), field.doc.replace('|', "\\|"));
        let inner = field
            .kind
            .trim_start_matches("Option<")
            .trim_start_matches("Vec<")
            .trim_start_matches("Box<")
            .trim_end_matches('>');
        let is_list = field.kind.contains("Vec<");
        let required =
            !field.has_default && !field.attributes.contains("default") && !field.kind.starts_with("Option<");
        let need = if required { "**Required.** " } else { "" };
        let (value, nested) = match items.get(inner) {
            Some(Item::Struct { fields, .. }) => ("map".to_owned(), Some(fields)),
            Some(Item::Enum(values)) => (format!("`{}`", values.join("`, `")), None),
            None if doc.starts_with("`{") => ("map".to_owned(), None),
            None => (value(inner, &field.attributes).to_owned(), None),
        };
        let value = if is_list { format!("list of {value}") } else { value };
        writeln!(page, "| `{prefix}{name}` | {value} | {need}{doc} |")?;
        if let Some(nested) = nested
            && !within.contains(&inner)
        {
            let list = if is_list { "[]" } else { "" };
            within.push(inner);
            rows(page, &format!("{prefix}{name}{list}."), nested, items, within)?;
            within.pop();
        }
    }
    Ok(())
}

/// What is written for a Rust type.
fn value(kind: &str, attributes: &str) -> &'static str {
    match kind {
        "bool" => "`true`, `false`",
        "Duration" | "Bound" => "duration",
        "PathBuf" => "path",
        "Endpoint" => "address, `host:port`",
        "Headers" | "Labels" => "map of text",
        "Params" | "HttpHeaders" => "map",
        "u32" | "u64" | "usize" | "NonZeroU32" if attributes.contains("size\"") || attributes.contains("size_") => {
            "size"
        }
        "f64" | "i16" | "i32" | "i64" | "u8" | "u32" | "u64" | "usize" | "NonZeroU32" => "number",
        "Scalar" => "text, number, `true`, `false`",
        // What is read by hand is written as text; what is ignored may be anything.
        "IgnoredAny" => "anything",
        _ => "text",
    }
}

/// `SkipOldest` as serde writes it: `skip_oldest`.
fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
