//! Why: the one place that knows every component by its name: a `const` table for each kind, and the plan over them. What a table's line leads to knows nothing of
//! the others.

use model::Signal;
use pipeline::config::{Config, Problems, Section};
use pipeline::connectors;
use pipeline::plan::{self, Connector, Kind, Plan, Removed, Tables};
use pipeline::processors::{self, Step};

use crate::extensions::{HealthCheck, Query};
use crate::file_storage::FileStorage;
use crate::zpages::Zpages;

/// An exporter's settings. The store is the one exporter that the process itself opens, because queries read what it keeps.
pub enum ExporterSettings {
    Store(Box<exporters::store::Config>),
    Other(Box<dyn exporters::Settings>),
}

/// A receiver's settings.
pub type ReceiverSettings = Box<dyn receivers::Settings>;

/// An extension's settings.
pub enum ExtensionSettings {
    Query(Query),
    HealthCheck(HealthCheck),
    FileStorage(FileStorage),
    Zpages(Zpages),
    /// Belongs to the receivers and exporters that name it, who read its settings themselves.
    Authenticator,
}

const RECEIVERS: &[Kind<ReceiverSettings>] = &[
    Kind {
        name: "otlp",
        also: &[],
        signals: &[],
        parse: |section| receiver(receivers::otlp::Config::parse(section)),
    },
    Kind {
        name: "jaeger",
        also: &[],
        signals: &receivers::jaeger::SIGNALS,
        parse: |section| receiver(receivers::jaeger::Config::parse(section)),
    },
    Kind {
        name: "loki",
        also: &[],
        signals: &receivers::loki::SIGNALS,
        parse: |section| receiver(receivers::loki::Config::parse(section)),
    },
    Kind {
        name: "prometheus",
        also: &[],
        signals: &receivers::prometheus::SIGNALS,
        parse: |section| receiver(receivers::prometheus::Config::parse(section)),
    },
    Kind {
        name: "prometheusremotewrite",
        also: &["prometheus_remote_write"],
        signals: &receivers::prometheusremotewrite::SIGNALS,
        parse: |section| receiver(receivers::prometheusremotewrite::Config::parse(section)),
    },
    Kind {
        name: "httpcheck",
        also: &[],
        signals: &receivers::httpcheck::SIGNALS,
        parse: |section| receiver(receivers::httpcheck::Config::parse(section)),
    },
    Kind {
        name: "filelog",
        also: &["file_log"],
        signals: &receivers::filelog::SIGNALS,
        parse: |section| receiver(receivers::filelog::Filelog::parse(section)),
    },
    Kind {
        name: "hostmetrics",
        also: &["host_metrics"],
        signals: &receivers::hostmetrics::SIGNALS,
        parse: |section| receiver(receivers::hostmetrics::Config::parse(section)),
    },
    Kind {
        name: "stdin",
        also: &[],
        signals: &receivers::stdin::SIGNALS,
        parse: |section| receiver(receivers::stdin::Config::parse(section)),
    },
];

fn receiver(settings: Result<impl receivers::Settings + 'static, Problems>) -> Result<ReceiverSettings, Problems> {
    settings.map(|settings| Box::new(settings) as ReceiverSettings)
}

fn exporter(settings: Result<impl exporters::Settings + 'static, Problems>) -> Result<ExporterSettings, Problems> {
    settings.map(|settings| ExporterSettings::Other(Box::new(settings)))
}

const PROCESSORS: &[Kind<Step>] = &[
    Kind {
        name: "cumulativetodelta",
        also: &[],
        signals: &[Signal::Metrics],
        parse: processors::cumulativetodelta::parse,
    },
    Kind {
        name: "deltatocumulative",
        also: &[],
        signals: &[Signal::Metrics],
        parse: processors::deltatocumulative::parse,
    },
    Kind {
        name: "attributes",
        also: &[],
        signals: &[],
        parse: processors::attributes::parse,
    },
    Kind {
        name: "filter",
        also: &[],
        signals: &[],
        parse: processors::filter::parse,
    },
    Kind {
        name: "groupbyattrs",
        also: &[],
        signals: &[],
        parse: processors::groupbyattrs::parse,
    },
    Kind {
        name: "memory_limiter",
        also: &[],
        signals: &[],
        parse: processors::memory_limiter::parse,
    },
    Kind {
        name: "resource",
        also: &[],
        signals: &[],
        parse: processors::resource::parse,
    },
    Kind {
        name: "probabilistic_sampler",
        also: &[],
        signals: &[Signal::Traces, Signal::Logs],
        parse: processors::probabilistic_sampler::parse,
    },
    Kind {
        name: "redaction",
        also: &[],
        signals: &[],
        parse: processors::redaction::parse,
    },
    Kind {
        name: "tail_sampling",
        also: &[],
        signals: &[Signal::Traces],
        parse: processors::tail_sampling::parse,
    },
    Kind {
        name: "transform",
        also: &[],
        signals: &[],
        parse: processors::transform::parse,
    },
    Kind {
        name: "batch",
        also: &[],
        signals: &[],
        parse: processors::batch::parse,
    },
];

const EXPORTERS: &[Kind<ExporterSettings>] = &[
    Kind {
        name: "store",
        also: &[],
        signals: &exporters::store::SIGNALS,
        parse: |section| {
            exporters::store::Config::parse(section)
                .map(Box::new)
                .map(ExporterSettings::Store)
        },
    },
    Kind {
        name: "otlp",
        also: &["otlp_grpc"],
        signals: &[],
        parse: |section| exporter(exporters::otlp::parse(section)),
    },
    Kind {
        name: "otlphttp",
        also: &["otlp_http"],
        signals: &[],
        parse: |section| exporter(exporters::otlphttp::parse(section)),
    },
    Kind {
        name: "prometheus",
        also: &[],
        signals: &[Signal::Metrics],
        parse: |section| exporter(exporters::prometheus::parse(section)),
    },
    Kind {
        name: "prometheusremotewrite",
        also: &["prometheus_remote_write"],
        signals: &[Signal::Metrics],
        parse: |section| exporter(exporters::prometheusremotewrite::parse(section)),
    },
    Kind {
        name: "jaeger",
        also: &[],
        signals: &exporters::jaeger::SIGNALS,
        parse: |section| exporter(exporters::jaeger::parse(section)),
    },
    Kind {
        name: "kafka",
        also: &[],
        signals: &[],
        parse: |section| exporter(exporters::kafka::parse(section)),
    },
    Kind {
        name: "loadbalancing",
        also: &[],
        signals: &[],
        parse: |section| exporter(exporters::loadbalancing::parse(section)),
    },
    Kind {
        name: "loki",
        also: &[],
        signals: &exporters::loki::SIGNALS,
        parse: |section| exporter(exporters::loki::parse(section)),
    },
    Kind {
        name: "awscloudwatchlogs",
        also: &[],
        signals: &exporters::awscloudwatchlogs::SIGNALS,
        parse: |section| exporter(exporters::awscloudwatchlogs::parse(section)),
    },
    Kind {
        name: "awsemf",
        also: &[],
        signals: &exporters::awsemf::SIGNALS,
        parse: |section| exporter(exporters::awsemf::parse(section)),
    },
    Kind {
        name: "debug",
        also: &[],
        signals: &[],
        parse: |section| exporter(exporters::debug::parse(section)),
    },
    Kind {
        name: "file",
        also: &[],
        signals: &[],
        parse: |section| exporter(exporters::file::parse(section)),
    },
];

/// What ends some pipelines and begins others.
const CONNECTORS: &[Connector] = &[
    Connector {
        name: "forward",
        also: &[],
        pairs: &[
            (Signal::Traces, Signal::Traces),
            (Signal::Logs, Signal::Logs),
            (Signal::Metrics, Signal::Metrics),
        ],
        parse: connectors::forward::parse,
    },
    Connector {
        name: "servicegraph",
        also: &["service_graph"],
        pairs: &[(Signal::Traces, Signal::Metrics)],
        parse: connectors::servicegraph::parse,
    },
    Connector {
        name: "spanmetrics",
        also: &["span_metrics"],
        pairs: &[(Signal::Traces, Signal::Metrics)],
        parse: connectors::spanmetrics::parse,
    },
];

const EXTENSIONS: &[Kind<ExtensionSettings>] = &[
    Kind {
        name: "query",
        also: &[],
        signals: &[],
        parse: |section| Query::parse(section).map(ExtensionSettings::Query),
    },
    Kind {
        name: "health_check",
        also: &[],
        signals: &[],
        parse: |section| HealthCheck::parse(section).map(ExtensionSettings::HealthCheck),
    },
    Kind {
        name: "file_storage",
        also: &[],
        signals: &[],
        parse: |section| FileStorage::parse(section).map(ExtensionSettings::FileStorage),
    },
    Kind {
        name: "zpages",
        also: &[],
        signals: &[],
        parse: |section| Zpages::parse(section).map(ExtensionSettings::Zpages),
    },
    Kind {
        name: "basicauth",
        also: &["basic_auth"],
        signals: &[],
        parse: authenticator,
    },
    Kind {
        name: "bearertokenauth",
        also: &["bearer_token_auth"],
        signals: &[],
        parse: authenticator,
    },
    Kind {
        name: "headers_setter",
        also: &[],
        signals: &[],
        parse: authenticator,
    },
];

fn authenticator(section: &Section<'_>) -> Result<ExtensionSettings, Problems> {
    exporters::authenticator::settings(section)?;
    if section.sets(&["filename"]) && (section.sets(&["token"]) || section.sets(&["tokens"])) {
        section.warn(
            &["filename"],
            "the file takes the place of `token` and `tokens`, which have no effect",
        );
    }
    Ok(ExtensionSettings::Authenticator)
}

/// What files from the field may still name.
const REMOVED: &[Removed] = &[
    Removed {
        what: "exporter",
        name: "logging",
        instead: "write `debug`, which does the same; `loglevel: debug` is `verbosity: detailed`",
    },
    Removed {
        what: "receiver",
        name: "opencensus",
        instead: "OpenCensus has ended; have its clients send OTLP to the receiver `otlp`",
    },
    Removed {
        what: "exporter",
        name: "opencensus",
        instead: "OpenCensus has ended; send to its successors with `otlp`",
    },
    Removed {
        what: "exporter",
        name: "jaeger_thrift",
        instead: "write `otlp`; Jaeger has taken OTLP on port 4317 since 1.35",
    },
    Removed {
        what: "processor",
        name: "queued_retry",
        instead: "leave it out: the journal is the queue, and exporters have `retry_on_failure`",
    },
    Removed {
        what: "processor",
        name: "spanmetrics",
        instead: "it became a connector",
    },
    Removed {
        what: "extension",
        name: "memory_ballast",
        instead: "leave it out: there is no garbage collector here that it would calm",
    },
    Removed {
        what: "extension",
        name: "ballast",
        instead: "leave it out: there is no garbage collector here that it would calm",
    },
    Removed {
        what: "extension",
        name: "pprof",
        instead: "leave it out: it profiles Go programs",
    },
];

/// A plan over the components that exist here.
pub type ServerPlan = Plan<ReceiverSettings, ExporterSettings, ExtensionSettings>;

/// What the configuration means, or everything that is wrong with it. No I/O.
pub fn plan(config: &Config) -> Result<ServerPlan, Problems> {
    let tables = Tables {
        removed: REMOVED,
        receivers: RECEIVERS,
        processors: PROCESSORS,
        exporters: EXPORTERS,
        connectors: CONNECTORS,
        extensions: EXTENSIONS,
    };
    plan::plan(config, &tables)
}

/// A component that a configuration may name.
pub struct Listed {
    /// `receiver`, `processor`, `exporter`, `connector` or `extension`.
    pub what: &'static str,
    pub name: &'static str,
    pub also: &'static [&'static str],
    /// What it takes; for a connector, that and what it gives.
    pub signals: Vec<Signal>,
}

/// Everything in the tables.
pub fn listed() -> Vec<Listed> {
    fn of<T>(what: &'static str, table: &'static [Kind<T>]) -> impl Iterator<Item = Listed> {
        table.iter().map(move |kind| Listed {
            what,
            name: kind.name,
            also: kind.also,
            signals: kind.signals.to_vec(),
        })
    }
    let connectors = CONNECTORS.iter().map(|kind| {
        let mut signals: Vec<Signal> = kind.pairs.iter().flat_map(|(from, to)| [*from, *to]).collect();
        signals.sort_unstable();
        signals.dedup();
        Listed {
            what: "connector",
            name: kind.name,
            also: kind.also,
            signals,
        }
    });
    of("receiver", RECEIVERS)
        .chain(of("processor", PROCESSORS))
        .chain(of("exporter", EXPORTERS))
        .chain(connectors)
        .chain(of("extension", EXTENSIONS))
        .collect()
}
